"""Delegation against the real domain: tickets that may be forwarded, and those made with them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from credspec.agent.domain_session import DomainSession
from credspec.kerberos.as_exchange import ExchangeError
from credspec.kerberos.kdc_errors import KRB5_BASE
from credspec.lab.domain import Lab, run_tool

FRONT = "Front01"
"""A gMSA of a web front end."""

BACK = "postgres/db.example.test"
"""The service that the front end reaches as its callers."""

NOT_DELEGATED = 0x100000  # userAccountControl, MS-ADTS 2.2.16
HIGHEST = b"\x7f\xff"


@pytest.fixture(scope="module")
def front(lab: Lab) -> Iterator[str]:
    name = f"--name={FRONT}"
    lab.samba_tool("service-account", "create", name, "--dns-host-name=front.example.test")
    lab.samba_tool("user", "enable", f"{FRONT}$")
    lab.samba_tool("spn", "add", "HTTP/front.example.test", f"{FRONT}$")
    lab.samba_tool(
        *("service-account", "group-msa-membership", "add"), name, "--principal=LABHOST$"
    )
    yield FRONT
    lab.samba_tool("service-account", "delete", name)


@pytest.fixture
def constrained(lab: Lab, front: str) -> Iterator[None]:
    """The front end may reach the back end as others, and for callers of any protocol."""
    lab.samba_tool("delegation", "add-service", f"{front}$", BACK)
    lab.samba_tool("delegation", "for-any-protocol", f"{front}$", "on")
    yield
    lab.samba_tool("delegation", "for-any-protocol", f"{front}$", "off")
    lab.samba_tool("delegation", "del-service", f"{front}$", BACK)


@pytest.fixture
def cache(session: DomainSession, front: str, tmp_path: Path) -> Path:
    """The cache of a container with that account, as a lease has it."""
    path = tmp_path / "krb5cc"
    path.write_bytes(session.acquire(front).ticket.ccache)
    return path


def call(cache: Path, *command: str) -> subprocess.CompletedProcess[str]:
    variables = dict(os.environ) | {"KRB5CCNAME": f"FILE:{cache}", "LC_ALL": "C"}
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


def flags_of(cache: Path) -> str:
    [line] = [e for e in call(cache, "klist", "-f").stdout.splitlines() if "Flags:" in e]
    return line.rpartition("Flags: ")[2]


def test_a_container_s_ticket_may_be_forwarded(session: DomainSession, cache: Path) -> None:
    assert "F" in flags_of(cache)
    assert session.acquire(FRONT).ticket.forwardable


def test_a_caller_of_any_protocol_is_delegated(constrained: None, cache: Path) -> None:
    """Protocol transition and constrained delegation: S4U2Self, then S4U2Proxy (MS-SFU)."""
    del constrained
    shown = call(cache, "kvno", "-q", "-U", "alice", "-P", BACK)
    assert shown.returncode == 0, shown.stderr
