"""The broker for programs that run for long, and for what was stolen: hours later, as it were."""

from __future__ import annotations

import asyncio
import http.server
import struct
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from credspec.config.policy import Policy
from credspec.kerberos.ccache_reader import read_ccache
from credspec.lab.domain import Lab
from support.agent.broker_client import FAKETIME, Client, fresh, twenty_served
from support.agent.broker_client import client as client  # noqa: PLC0414 - a fixture
from support.agent.broker_client import clock as clock  # noqa: PLC0414 - a fixture
from support.agent.real_leases import Bench
from support.agent.real_leases import bench as bench  # noqa: PLC0414 - a fixture
from support.machine.application_runtimes import RUNTIMES

PROGRAMS = Path(__file__).parent / "programs"
POSTGRES = "postgres/db.example.test"


@pytest.fixture
def services() -> tuple[str, ...]:
    """Patterns of the lease of `client`: any service."""
    return ()


def whoami(lab: Lab) -> tuple[str, ...]:
    return ("ldapwhoami", "-N", "-Q", "-Y", "GSSAPI", "-H", f"ldap://{lab.dc_host}")


def end_of(cache: Path, service: str) -> datetime:
    """Return when the last ticket of a service in a cache ends."""
    records = read_ccache(cache.read_bytes()).records
    return [each.end for each in records if each.server.startswith(service)][-1]


async def passed(end: datetime) -> None:
    """Wait; programs compare whole seconds."""
    while datetime.now(UTC) <= end + timedelta(seconds=1):
        await asyncio.sleep(0.1)


async def test_programs_ask_again_when_their_ticket_has_ended(lab: Lab, client: Client) -> None:
    """With the same cache; what was given for so long has ended for others, too."""
    client.leases.policy.replace(Policy(ticket_life={"ldap": timedelta(seconds=20)}))
    cache = client.directory / "krb5cc"
    shown = await client.run(*whoami(lab))
    assert shown.stdout == f"u:{lab.netbios}\\WebApp01$\n", shown.stderr
    stolen = client.directory / "stolen"
    stolen.write_bytes(cache.read_bytes())
    first = end_of(cache, "ldap/")
    elsewhere = client.environment | {
        "KRB5CCNAME": str(stolen),
        "KRB5_CONFIG": str(lab.krb5_conf),
    }
    here, client.environment = client.environment, elsewhere
    shown = await client.run(*whoami(lab))
    assert shown.stdout == f"u:{lab.netbios}\\WebApp01$\n", shown.stderr
    await passed(first)
    assert (await client.run(*whoami(lab))).returncode != 0
    client.environment = here
    shown = await client.run(*whoami(lab))
    assert shown.stdout == f"u:{lab.netbios}\\WebApp01$\n", shown.stderr
    assert end_of(cache, "ldap/") > first


@pytest.mark.parametrize(
    ("minutes", "is_taken"), [(-1, True), (4, True), (6, False), (60 * 8, False)]
)
async def test_a_server_takes_a_stolen_ticket_until_its_end_and_the_skew(
    lab: Lab, client: Client, minutes: int, is_taken: bool
) -> None:
    """Whatever the thief writes into the cache; the clocks are those of thief and server."""
    before = datetime.now(UTC)
    assert (await client.run("kvno", POSTGRES)).returncode == 0
    cache = client.directory / "krb5cc"
    end = end_of(cache, "postgres/")
    assert end <= datetime.now(UTC) + Policy().life_of("postgres")
    data = cache.read_bytes()
    said = struct.pack(">I", int(end.timestamp()))
    later = struct.pack(">I", int((end + timedelta(days=300)).timestamp()))
    assert said in data
    stolen = client.directory / "stolen"
    stolen.write_bytes(data.replace(said, later))
    ahead = (end + timedelta(minutes=minutes) - before).total_seconds()
    client.environment |= {
        "KRB5CCNAME": str(stolen),
        "KRB5_CONFIG": str(lab.krb5_conf),
        "KRB5_KTNAME": str(lab.directory / "postgres.keytab"),
        "KRB5RCACHENAME": "none:",
        "LD_PRELOAD": FAKETIME,
        "FAKETIME": f"{ahead:+.0f}s",
    }
    program = str(PROGRAMS / "accept_stolen.py")
    shown = await client.run("/usr/bin/python3", program, "postgres@db.example.test")
    if is_taken:
        assert shown.stdout == f"WebApp01$@{lab.realm}\n", shown.stderr
    else:
        assert shown.returncode != 0
        assert "Ticket expired" in shown.stderr


def aged(client: Client, minutes: int) -> None:
    """Make what the agent holds so much older, as far as the agent and its answers tell."""
    held = client.leases._broker._tickets._held  # type: ignore[attr-defined]
    for tickets in held.values():
        for key, ticket in tickets.items():
            tickets[key] = replace(
                ticket,
                start=ticket.start - timedelta(minutes=minutes),
                authenticated=ticket.authenticated - timedelta(hours=4),
            )


@asynccontextmanager
async def java_program(client: Client) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Java program that has taken its ticket, see Contexts.java."""
    process = await asyncio.create_subprocess_exec(
        *("java", f"-Djava.security.krb5.conf={client.directory}/krb5.conf"),
        *("-Djavax.security.auth.useSubjectCredsOnly=false", str(PROGRAMS / "Contexts.java")),
        env=client.environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert (await process.stdout.readline()).startswith(b"WebApp01$@")
        yield process
    finally:
        process.kill()
        await process.communicate()


async def context(java: asyncio.subprocess.Process, service: str) -> str:
    """Return what the program says of a service: token, or what is wrong."""
    assert java.stdin is not None
    assert java.stdout is not None
    java.stdin.write(f"{service}\n".encode())
    return (await java.stdout.readline()).decode().strip()


async def test_a_java_program_that_is_older_than_the_agent(
    lab: Lab, bench: Bench, client: Client
) -> None:
    """It holds the decoy of its start in memory, and asks by it in every later time."""
    client.leases.policy.replace(Policy(ticket_life={"ldap": timedelta(seconds=5)}))
    async with java_program(client) as java:
        assert await context(java, f"ldap@{lab.dc_host}") == "token"
        assert await client.leases.refresh([client.record.lease_id]) == []
        client.leases.close()
        (client.directory / "krb5cc").unlink()
        stored = {client.record.lease_id: client.kept}
        identities, leases = bench.agent(stored_sockets=stored)
        await leases.adopt()
        assert await context(java, f"cifs@{lab.dc_host}") == "token"
        # The first one has ended meanwhile, or soon will.
        lives = leases.service_audit.counts["granted"]
        await asyncio.sleep(5.5)
        assert await context(java, f"ldap@{lab.dc_host}") == "token"
        assert leases.service_audit.counts["granted"] == lives + 1
    leases.close()
    await identities.close()


async def test_java_takes_what_the_agent_holds_for_long(lab: Lab, client: Client) -> None:
    assert (await client.run("kvno", f"ldap/{lab.dc_host}")).returncode == 0
    aged(client, 20)
    async with java_program(client) as java:
        assert await context(java, f"ldap@{lab.dc_host}") == "token"
    assert client.leases.service_audit.counts == {"granted": 2}
    assert client.leases._broker._identities.acquisitions == 1  # type: ignore[attr-defined]


async def test_heimdal_takes_what_the_agent_holds_for_long(lab: Lab, client: Client) -> None:
    """Samba's own Heimdal, in smbclient."""
    assert (await client.run("kvno", f"cifs/{lab.dc_host}")).returncode == 0
    aged(client, 20)
    client.environment["KRB5CCNAME"] = fresh(client)
    share = ("smbclient", f"//{lab.dc_host}/data", "--use-kerberos=required", "-c", "ls")
    shown = await client.run(*share)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert client.leases.service_audit.counts["granted"] == 2


class Negotiating(http.server.BaseHTTPRequestHandler):
    """A proxy that is every web server itself: it asks for Negotiate, and takes any token."""

    def do_GET(self) -> None:
        proof = self.headers.get("Authorization", "")
        self.send_response(200 if proof.startswith("Negotiate YI") else 401)
        self.send_header("WWW-Authenticate", "Negotiate")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Negotiating) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


async def test_gokrb5_takes_what_the_agent_holds_for_long(
    lab: Lab, client: Client, proxy: str
) -> None:
    assert (await client.run("kvno", f"HTTP/{lab.dc_host}")).returncode == 0
    aged(client, 9)
    client.environment |= {"KRB5CCNAME": fresh(client), "HTTP_PROXY": proxy}
    shown = await client.run(str(RUNTIMES / "go/whoami"), "http", f"http://{lab.dc_host}/")
    assert shown.returncode == 0, shown.stderr
    assert client.leases.service_audit.counts == {"granted": 2}


async def test_a_refusal_asks_no_domain_controller(lab: Lab, client: Client) -> None:
    """One that is frozen does not delay it, nor change its words; what is allowed waits for it."""
    client.leases._table.records[client.record.lease_id] = replace(
        client.record, services=("ldap/*.example.test",)
    )
    lab.pause_dc()
    try:
        shown = await client.run("kvno", f"cifs/{lab.dc_host}")
        assert "KDC policy rejects request" in shown.stderr
        assert client.leases.service_audit.counts.keys() == {"denied"}
    finally:
        lab.resume_dc()


async def test_two_hundred_contexts_while_no_domain_controller_answers(
    lab: Lab, bench: Bench
) -> None:
    """Each has an answer, which tells that the service cannot be had now."""
    identities, leases = bench.agent()
    lines = []
    for home in await twenty_served(bench, leases):
        lines += [
            f"cp {home}/krb5cc {home}/cc{i}; KRB5_CONFIG={home}/krb5.conf "
            f"KRB5CCNAME={home}/cc{i} kvno ldap/{lab.dc_host} &"
            for i in range(10)
        ]
    lab.pause_dc()
    try:
        shown = await asyncio.to_thread(
            subprocess.run,
            ["sh", "-c", "\n".join([*lines, "wait"])],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        lab.resume_dc()
    # Programs write into each other's lines.
    assert shown.stderr.count("A service is not available") == 200
    # MIT sends one that was answered so again, which is refused as sent before.
    assert leases.service_audit.counts.keys() <= {"failed", "refused"}
    assert leases.service_audit.counts["failed"] >= 200
    leases.close()
    await identities.close()
