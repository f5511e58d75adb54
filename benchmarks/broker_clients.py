"""Programs' requests for tickets of services, to a KDC and to brokers: what `broker.py` runs.

    broker_clients.py TGT_LEASE BROKER_LEASES SERVICE OTHER_SERVICE...

The leases are directories, with commas between them. The first service is asked for often, so that
the agent holds its ticket; each of the others once, for which the agent must ask the KDC itself.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from credspec.kerberos.service_ticket import get_service_ticket_by_tgt, realms_of_service
from measure import Sample, figure, interleaved, row

RUNS = 150
MOST_HELD, MOST_FIRST = 1.5, 1.3
AT_ONCE = 200


def asking(lease: Path, scratch: str = "scratch") -> Callable[[str], None]:
    """Return what gets a ticket as a program of that lease does, with nothing but its TGT."""
    cache = lease / scratch
    tgt = (lease / "krb5cc").read_bytes()

    def ask(service: str) -> None:
        cache.write_bytes(tgt)
        os.environ["KRB5_CONFIG"] = str(lease / "krb5.conf")
        get_service_ticket_by_tgt(f"FILE:{cache}", service)

    return ask


def main() -> None:
    """Print the rows."""
    tgt_lease, leases = Path(sys.argv[1]), [Path(each) for each in sys.argv[2].split(",")]
    service, *others = sys.argv[3:]
    one_by_one(tgt_lease, leases[0], service, others)
    together(tgt_lease, leases, service)


def one_by_one(tgt_lease: Path, lease: Path, service: str, others: list[str]) -> None:
    """Measure one client: a ticket from the KDC, from the broker, and that of a new service."""
    kdc, broker = asking(tgt_lease), asking(lease)
    found = interleaved(
        {"the KDC itself": lambda: kdc(service), "broker": lambda: broker(service)}, RUNS
    )
    if not realms_of_service(f"FILE:{lease / 'scratch'}", service):
        raise SystemExit(f"the broker gave no ticket of {service}")
    direct, held = found["the KDC itself"], found["broker"]
    row("a service's ticket from the KDC", direct, None, "", met=True)
    met = held.median <= MOST_HELD * direct.median
    row("from the broker, which holds it", held, direct, f"<= {MOST_HELD} x", met=met)
    taken: dict[str, list[float]] = {"direct": [], "held": [], "first": []}
    # Services in pairs, so that each is new to the domain in the first call that it is for.
    for one, other in zip(others[::2], others[1::2], strict=True):
        for name, call, wanted in (("direct", kdc, one), ("first", broker, other),
                                   ("held", broker, other)):  # fmt: skip
            started = time.perf_counter()
            call(wanted)
            taken[name].append((time.perf_counter() - started) * 1000)
    both = tuple(a + b for a, b in zip(taken["direct"], taken["held"], strict=True))
    first, sums = Sample("first", tuple(taken["first"])), Sample("the sum of both", both)
    met = first.median <= MOST_FIRST * sums.median
    row("from the broker, the first time", first, sums, f"<= {MOST_FIRST} x", met=met)


def together(tgt_lease: Path, leases: list[Path], service: str) -> None:
    """Measure many programs that ask at once, of all leases, and of one at the KDC."""
    for name, each in (("brokers", leases), ("the KDC itself", [tgt_lease])):
        taken = at_once(each, service)
        p99 = statistics.quantiles(taken, n=100)[98]
        what = f"{AT_ONCE} programs of {len(each)} leases at once"
        failed = AT_ONCE - len(taken)
        met = not failed or leases is not each
        figure(f"{what}: p99, {name}", f"{p99:.0f} ms", f"{failed} failed", "no error", met=met)


def at_once(leases: list[Path], service: str) -> list[float]:
    """Return how long each of many programs took, of those that got their ticket."""
    ready, start = os.pipe()
    answers, answer = os.pipe()
    pids = []
    for number in range(AT_ONCE):
        pid = os.fork()
        if pid == 0:
            os.close(start)
            status = 1
            try:
                ask = asking(leases[number % len(leases)], f"scratch{number}")
                os.read(ready, 1)  # until all are there
                started = time.perf_counter()
                ask(service)
                os.write(answer, f"{(time.perf_counter() - started) * 1000:.3f}\n".encode())
                status = 0
            finally:
                os._exit(status)
        pids.append(pid)
    os.close(ready)
    os.close(answer)
    time.sleep(1)
    os.close(start)
    with os.fdopen(answers) as lines:
        taken = [float(line) for line in lines]
    for pid in pids:
        os.waitpid(pid, 0)
    return taken


if __name__ == "__main__":
    main()
