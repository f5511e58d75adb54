"""From nothing to an account's ticket, on a lab's joined host: against the floor, and a replay.

The replay runs the steps of shell-based tools, each a program of its own.
Runs in the lab: ``acquisition.py FLOOR ACCOUNT_KEYTAB``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from credspec.config.host import Config, load_config
from credspec.directory.locator import DnsResolver, Locator
from credspec.kerberos.krb5_conf import AgentKrb5Conf
from credspec.service.process_safety import overwrite_freed_memory
from credspec.session.domain_session import DomainSession
from credspec.session.host_identity import HOST_CACHE, MachineKeytab
from floor import Floor, plain_environment
from measure import figure, interleaved, row

RUNS = 30
COUNTED = 5
ACCOUNT = "WebApp01"


DECODER = """
import base64, sys
line = next(x for x in sys.stdin if x.startswith("msDS-ManagedPassword::"))
blob = base64.b64decode(line.partition("::")[2])
start = int.from_bytes(blob[8:10], "little")
text = blob[start : start + 256].decode("utf-16-le", "replace")
sys.stdout.buffer.write(text.encode() + b"\\n")
"""


def replay(config: Config, domain: str, cache: Path) -> Callable[[], None]:
    """Return the steps that shell-based tools take, with what they hand on from one to the next."""
    environment = {**plain_environment(), "KRB5CCNAME": f"FILE:{cache}"}
    base = "DC=" + domain.replace(".", ",DC=")
    search = ["ldapsearch", "-N", "-LLL", "-Q", "-o", "ldif-wrap=no", "-Y", "GSSAPI"]
    search += ["-H", f"ldap://dc1.{domain}", "-b", base, f"(sAMAccountName={ACCOUNT}$)"]
    log_on = ["kinit", "-kt", str(config.keytab), MachineKeytab(config.keytab).name]

    def step(arguments: list[str], given: bytes = b"") -> bytes:
        return subprocess.run(
            arguments, env=environment, check=True, capture_output=True, input=given
        ).stdout

    def run() -> None:
        step(log_on)
        step(["host", "-t", "SRV", f"_ldap._tcp.dc._msdcs.{domain}"])
        step([*search, "distinguishedName"])
        found = step([*search, "msDS-ManagedPassword"])
        password = step([sys.executable, "-IS", "-c", DECODER], found)
        step(["kinit", f"{ACCOUNT}$@{domain.upper()}"], password)

    return run


def requests(call: Callable[[], object]) -> tuple[int, int]:
    """Return how many TCP connections a call opens and UDP datagrams it sends, at the least."""

    def counters() -> tuple[int, int]:
        lines = [line.split() for line in Path("/proc/self/net/snmp").read_text().splitlines()]
        named = {
            (head[0], name): int(value)
            for head, values in zip(lines[::2], lines[1::2], strict=True)
            for name, value in zip(head[1:], values[1:], strict=True)
        }
        return named["Tcp:", "ActiveOpens"], named["Udp:", "OutDatagrams"]

    found = []
    for _ in range(COUNTED):
        before = counters()
        call()
        after = counters()
        found.append((after[0] - before[0], after[1] - before[1]))
    # What the domain controller asks itself meanwhile is counted, too.
    return min(found)


def main(floor_program: str, account_keytab: str) -> None:
    """Print the rows."""
    # As the agent does; it costs something, though not the alternatives.
    overwrite_freed_memory()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        own = directory / "krb5.conf"
        os.environ["KRB5CCNAME"] = HOST_CACHE
        os.environ["KRB5_CONFIG"] = f"{own}:{os.environ['KRB5_CONFIG']}"
        config = load_config()
        krb5_conf = AgentKrb5Conf(own)

        def session() -> DomainSession:
            host = MachineKeytab(config.keytab)
            return DomainSession(
                host.domain,
                host_identity=host,
                locator=Locator(DnsResolver()),
                transport=config.transport,
                ca_file=None,
                krb5_conf=krb5_conf,
            )

        def cold() -> None:
            opened = session()
            opened.acquire(ACCOUNT)
            opened.close()

        held = session()
        realm = held.domain.upper()
        floor, quick_floor = (
            Floor([floor_program, how], config, Path(account_keytab), realm)
            for how in ("cold", "cold-once")
        )
        found = interleaved(
            {
                "the floor, in C": lambda: floor.acquire([ACCOUNT]),
                "the floor, one round trip each": lambda: quick_floor.acquire([ACCOUNT]),
                "nothing cached": cold,
                "host logged on": lambda: held.acquire(ACCOUNT),
                "a replay of shell-based tools": replay(config, held.domain, directory / "cache"),
            },
            RUNS,
        )
        replayed = replay(config, held.domain, directory / "cache")
        counts = [requests(call) for call in (cold, lambda: held.acquire(ACCOUNT), replayed)]
        floor.close()
        quick_floor.close()
        held.close()
    bottom, lower, cold_sample, held_sample, shell = found.values()
    row("the floor: 2 AS exchanges, bind, search", bottom, None, "", met=True)
    for against, most in ((bottom, 1.5), (lower, 1.25), (shell, 0.3)):
        met = most is None or cold_sample.median <= most * against.median
        target = f"<= {most} x" if most else ""
        row("spec to ticket, nothing cached", cold_sample, against, target, met=met)
    row("spec to ticket, host logged on", held_sample, bottom, "", met=True)
    first, next_, shell_counts = (f"{tcp} TCP, {udp} UDP" for tcp, udp in counts)
    figure("requests, nothing cached", first, f"a replay: {shell_counts}", "", met=True)
    figure("requests, host logged on", next_, "", "", met=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
