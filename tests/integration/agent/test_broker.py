"""The broker with the real domain: programs of MIT Kerberos ask it as they ask any KDC."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from credspec.agent.leases.leases import Leases
from credspec.agent.leases.record import LeaseRecord
from credspec.contract.service_names import BROKER
from credspec.kerberos.ccache_reader import read_ccache
from credspec.lab.domain import Lab
from support.agent.real_leases import Bench
from support.agent.real_leases import bench as bench  # noqa: PLC0414 - a fixture

LDAP = "ldap/*.example.test"


def sockets() -> list[socket.socket]:
    """Return what the shim passes on."""
    tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
    tcp.bind(("127.0.0.1", 0))
    udp.bind(tcp.getsockname())
    tcp.listen(128)
    return [tcp, udp]


class Client:
    """A lease in mode broker, and programs that use it."""

    def __init__(self, bench: Bench, leases: Leases, record: LeaseRecord, home: Path) -> None:
        self.leases, self.record = leases, record
        self.directory = bench.directory / "leases" / record.lease_id
        self.audit = bench.directory / "audit.jsonl"
        self.environment = {
            **os.environ,
            "KRB5CCNAME": str(self.directory / "krb5cc"),
            "KRB5_CONFIG": str(self.directory / "krb5.conf"),
            "LC_ALL": "C",
        }
        del home

    async def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(
            subprocess.run,
            command,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def lines(self, decision: str) -> list[dict[str, Any]]:
        """Return the lines of the audit log about services."""
        lines = [json.loads(line) for line in self.audit.read_text().splitlines()]
        return [line for line in lines if "service" in line and line["decision"] == decision]


@pytest.fixture
async def client(lab: Lab, bench: Bench, tmp_path: Path) -> AsyncIterator[Client]:
    identities, leases = bench.agent()
    request = replace(bench.request(1, "one.json"), tickets=BROKER, services=(LDAP,), uid=0, gid=0)
    record = await leases.make(request)
    record = await leases.serve_kdc(record.lease_id, sockets())
    yield Client(bench, leases, record, tmp_path)
    leases.close()
    await identities.close()


async def test_a_ticket_of_a_service_that_is_allowed(lab: Lab, client: Client) -> None:
    shown = await client.run("kvno", f"ldap/{lab.dc_host}")
    assert shown.returncode == 0, shown.stderr
    [line] = client.lines("granted")
    assert line["service"] == f"ldap/{lab.dc_host}"
    assert line["via"] == "kdc"
    assert line["pattern"] == LDAP
    assert line["accounts"] == ["webapp01@example.test"]


async def test_another_service_is_refused(lab: Lab, client: Client) -> None:
    shown = await client.run("kvno", f"cifs/{lab.dc_host}")
    assert shown.returncode == 1
    assert "KDC policy rejects request" in shown.stderr
    assert client.lines("denied")[0]["service"] == f"cifs/{lab.dc_host}"


async def test_what_is_in_the_files(lab: Lab, client: Client) -> None:
    """The one ticket is a decoy, which the real KDC cannot decrypt."""
    cache = read_ccache((client.directory / "krb5cc").read_bytes())
    assert [each.server for each in cache.records] == [f"krbtgt/{lab.realm}@{lab.realm}"]
    client.environment["KRB5_CONFIG"] = str(lab.krb5_conf)
    shown = await client.run("kvno", f"ldap/{lab.dc_host}")
    assert "Decrypt integrity check failed" in shown.stderr
