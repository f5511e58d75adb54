"""A service's ticket from the broker, beside one from the real KDC: libkrb5 asks both.

    broker.py TGT_LEASE BROKER_LEASE SERVICE OTHER_SERVICE...

The leases are directories. The first service is asked for often, so that the agent holds its
ticket; each of the others once, for which the agent must ask the KDC itself.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from credspec.kerberos.service_ticket import get_service_ticket_by_tgt, realms_of_service
from measure import Sample, interleaved, row

RUNS = 150
MOST_HELD, MOST_FIRST = 1.5, 1.3


def asking(lease: Path) -> Callable[[str], None]:
    """Return what gets a ticket as a program of that lease does, with nothing but its TGT."""
    scratch = lease / "scratch"
    tgt = (lease / "krb5cc").read_bytes()

    def ask(service: str) -> None:
        scratch.write_bytes(tgt)
        os.environ["KRB5_CONFIG"] = str(lease / "krb5.conf")
        get_service_ticket_by_tgt(f"FILE:{scratch}", service)

    return ask


def main() -> None:
    """Print the rows."""
    tgt_lease, broker_lease = map(Path, sys.argv[1:3])
    service, *others = sys.argv[3:]
    kdc, broker = asking(tgt_lease), asking(broker_lease)
    found = interleaved(
        {"the KDC itself": lambda: kdc(service), "broker": lambda: broker(service)}, RUNS
    )
    if not realms_of_service(f"FILE:{broker_lease / 'scratch'}", service):
        raise SystemExit(f"the broker gave no ticket of {service}")
    direct, held = found["the KDC itself"], found["broker"]
    row("a service's ticket from the KDC", direct, None, "", met=True)
    met = held.median <= MOST_HELD * direct.median
    row("from the broker, which holds it", held, direct, f"<= {MOST_HELD} x", met=met)
    took = []
    for other in others:
        started = time.perf_counter()
        broker(other)
        took.append((time.perf_counter() - started) * 1000)
    first = Sample("first", tuple(took))
    both = Sample("both", tuple(a + b for a, b in zip(direct.milliseconds, held.milliseconds,
                                                      strict=True)))  # fmt: skip
    met = first.median <= MOST_FIRST * both.median
    row("from the broker, the first time", first, both, f"<= {MOST_FIRST} x", met=met)


if __name__ == "__main__":
    main()
