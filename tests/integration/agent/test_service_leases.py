"""Leases with tickets of services only, in this process, with the real domain."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from credspec.agent.leases.leases import Leases
from credspec.agent.leases.request import LeaseRequest
from credspec.kerberos.ccache_reader import read_ccache
from credspec.lab.domain import Lab
from support.agent.real_leases import Bench, files
from support.agent.real_leases import bench as bench  # noqa: PLC0414 - a fixture

EXTRA = "HTTP/extra.example.test"


def wanting(bench: Bench, number: int, *services: str, spec: str = "one.json") -> LeaseRequest:
    return replace(bench.request(number, spec), tickets="services", services=services)


def servers(bench: Bench, number: int, name: str = "krb5cc") -> list[str]:
    """Return whose tickets are in a lease's cache."""
    path = bench.directory / "leases" / f"{number:032x}" / name
    return [record.server for record in read_ccache(path.read_bytes()).records]


def audited(bench: Bench, event: str) -> list[dict[str, object]]:
    lines = (bench.directory / "audit.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if entry["event"] == event]


async def settled(leases: Leases, number: int, *, after: str | None) -> str:
    """Return when a lease's ticket ends, once that is another time than `after`."""
    async with asyncio.timeout(120):
        while True:
            found = leases.get(f"{number:032x}").ticket_end
            if found is not None and found.isoformat() != after:
                return found.isoformat()
            await asyncio.sleep(0.2)


@pytest.fixture
def extra(lab: Lab) -> Iterator[str]:
    """A service that can be taken away."""
    lab.samba_tool("spn", "add", EXTRA, "svc-sql")
    yield EXTRA
    subprocess.run(
        [*lab.samba_tool_command("spn", "delete", EXTRA, "svc-sql")], check=False
    ) if hasattr(lab, "samba_tool_command") else None


async def test_a_lease_has_tickets_of_its_services_and_no_tgt(bench: Bench, lab: Lab) -> None:
    identities, leases = bench.agent()
    services = (f"ldap/{lab.dc_host}", "MSSQLSvc/DB.example.test:1433")
    record = await leases.make(wanting(bench, 1, *services))
    assert files(bench, 1) == {"krb5cc", "krb5.conf"}
    assert servers(bench, 1) == [
        f"ldap/{lab.dc_host}@{lab.realm}",
        f"MSSQLSvc/db.example.test:1433@{lab.realm}",
        f"MSSQLSvc/DB.example.test:1433@{lab.realm}",
    ]
    home = bench.directory / "leases" / record.lease_id
    assert not any(b"krbtgt" in path.read_bytes() for path in home.iterdir())
    conf = (home / "krb5.conf").read_text()
    assert "dns_lookup_kdc = false" in conf
    assert "[realms]" not in conf
    subprocess.run(["klist", "-s", str(home / "krb5cc")], check=True)
    shown = leases.status(leases.get(record.lease_id))
    assert [s["error"] for s in shown["service_tickets"]] == [None, None]
    lines = audited(bench, "service-ticket-granted")
    assert [line["service"] for line in lines] == list(services)
    assert {line["via"] for line in lines} == {"file"}
    await leases.release(record.lease_id)
    assert files(bench, 1) == set()
    await identities.close()
