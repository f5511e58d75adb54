"""A lease in mode broker in this process, with the real domain, and programs that use it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from credspec.agent.leases.leases import Leases
from credspec.agent.leases.record import LeaseRecord
from credspec.contract.service_names import BROKER
from credspec.lab.domain import Lab
from support.agent.real_leases import Bench

LDAP = "ldap/*.example.test"
ABROAD = "HTTP/*.other.test@OTHER.TEST"
FAKETIME = f"/usr/lib/{os.uname().machine}-linux-gnu/faketime/libfaketime.so.1"


def sockets() -> list[socket.socket]:
    """Return what the shim passes on."""
    tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
    tcp.bind(("127.0.0.1", 0))
    udp.bind(tcp.getsockname())
    tcp.listen(128)
    return [tcp, udp]


class Client:
    """A lease in mode broker, and programs that use it."""

    def __init__(
        self, bench: Bench, leases: Leases, record: LeaseRecord, kept: list[socket.socket]
    ) -> None:
        self.kept = kept
        self.leases, self.record = leases, record
        self.directory = bench.directory / "leases" / record.lease_id
        self.audit = bench.directory / "audit.jsonl"
        self.environment = {
            **os.environ,
            "KRB5CCNAME": str(self.directory / "krb5cc"),
            "KRB5_CONFIG": str(self.directory / "krb5.conf"),
            "LC_ALL": "C",
        }
        self.first = (self.directory / "krb5cc").read_bytes()

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


class HostClock:
    """The clock of the agent and of the programs, so much ahead of the domain's."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": FAKETIME, "FAKETIME": f"{self.ahead.total_seconds():+.0f}s"}


@pytest.fixture
def clock() -> HostClock:
    return HostClock()


@pytest.fixture
def services() -> tuple[str, ...]:
    """Patterns of the lease of `client`; none allow every service."""
    return (LDAP, ABROAD)


@pytest.fixture
async def client(
    lab: Lab, bench: Bench, clock: HostClock, services: tuple[str, ...]
) -> AsyncIterator[Client]:
    identities, leases = bench.agent(now=clock.now)
    request = replace(bench.request(1, "one.json"), tickets=BROKER, services=services, uid=0, gid=0)
    record = await leases.make(request)
    opened = sockets()
    kept = [each.dup() for each in opened]
    record = await leases.serve_kdc(record.lease_id, opened)
    yield Client(bench, leases, record, kept)
    leases.close()
    for each in kept:
        each.close()
    await identities.close()


async def twenty_served(bench: Bench, leases: Leases) -> list[Path]:
    """Make twenty leases without limits, each with its KDC; return their directories."""
    homes = []
    for number in range(1, 21):
        request = replace(bench.request(number, "one.json"), tickets=BROKER, uid=0, gid=0)
        record = await leases.make(request)
        await leases.serve_kdc(record.lease_id, sockets())
        homes.append(bench.directory / "leases" / record.lease_id)
    return homes


def fresh(client: Client) -> str:
    """Return a copy of the cache without what was granted before."""
    path = client.directory / f"copy-{len(list(client.directory.iterdir()))}"
    path.write_bytes(client.first)
    path.chmod(0o600)  # Heimdal wants it
    return str(path)


def audited(bench: Bench, decision: str) -> list[dict[str, Any]]:
    lines = (bench.directory / "audit.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [line for line in found if "service" in line and line["decision"] == decision]
