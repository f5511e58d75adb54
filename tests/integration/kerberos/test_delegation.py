"""Delegation against the real domain: tickets that may be forwarded, and those made with them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import krb5
import pytest

from credspec.agent.domain_session import DomainSession
from credspec.kerberos import tickets
from credspec.kerberos.as_exchange import ExchangeError
from credspec.kerberos.kdc_errors import KRB5_BASE
from credspec.lab.domain import Lab, run_tool

FRONT = "Front01"
"""A gMSA of a web front end."""

BACK = "postgres/db.example.test"
"""The service that the front end reaches as its callers."""

_CONTROL = "userAccountControl"
NOT_DELEGATED = 0x100000  # userAccountControl, MS-ADTS 2.2.16

DELEGATE = f"""
import gssapi, sys
name = gssapi.Name("{BACK.replace("/", "@")}", gssapi.NameType.hostbased_service)
flags = gssapi.RequirementFlag.delegate_to_peer | gssapi.RequirementFlag.mutual_authentication
caller = gssapi.SecurityContext(name=name, usage="initiate", flags=flags)
keys = gssapi.Credentials(usage="accept", store={{"keytab": sys.argv[1]}})
service = gssapi.SecurityContext(usage="accept", creds=keys)
answer = service.step(caller.step())
caller.step(answer)
print(service.delegated_creds.name if service.delegated_creds else "nothing")
"""


class Krb5Refusal(krb5.Krb5Error):
    """An error of libkrb5 with a number of the test's."""

    def __init__(self, number: int) -> None:
        Exception.__init__(self, "refused")
        self.number = number

    @property
    def err_code(self) -> int:
        return self.number


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
    """Return the flags of the first ticket, which is the TGT."""
    lines = [e for e in call(cache, "klist", "-f").stdout.splitlines() if "Flags:" in e]
    return lines[0].rpartition("Flags: ")[2]


def test_a_container_s_ticket_may_be_forwarded(session: DomainSession, cache: Path) -> None:
    assert "F" in flags_of(cache)
    assert session.acquire(FRONT).ticket.forwardable


@contextmanager
def account_control(lab: Lab, name: str, bit: int) -> Iterator[None]:
    """Let a bit of userAccountControl be set."""
    database = str(lab.directory / "dc/private/sam.ldb")
    found = run_tool(
        ["ldbsearch", "-H", database, f"(sAMAccountName={name})", "userAccountControl"]
    )
    dn, before = (re.search(f"(?m)^{key}: (.+)$", found)[1] for key in ("dn", _CONTROL))  # type: ignore[index]
    for value in (int(before) | bit, int(before)):
        ldif = f"dn: {dn}\nchangetype: modify\nreplace: {_CONTROL}\n{_CONTROL}: {value}\n"
        run_tool(["ldbmodify", "-H", database], ldif)
        if value != int(before):
            yield


def s4u(cache: Path) -> subprocess.CompletedProcess[str]:
    """Get a ticket for the back end as alice (MS-SFU: S4U2Self, then S4U2Proxy)."""
    return call(cache, "kvno", "-q", "-U", "alice", "-P", BACK)


def test_a_caller_of_any_protocol_is_delegated(constrained: None, cache: Path) -> None:
    del constrained
    shown = s4u(cache)
    assert shown.returncode == 0, shown.stderr


def test_without_leave_nobody_is_delegated(cache: Path) -> None:
    shown = s4u(cache)
    assert (shown.returncode, "constrained delegation" in shown.stderr) == (1, True), shown.stderr


def test_without_protocol_transition_a_caller_must_have_logged_on_by_kerberos(
    lab: Lab, front: str, constrained: None, cache: Path
) -> None:
    del constrained
    lab.samba_tool("delegation", "for-any-protocol", f"{front}$", "off")
    fresh = cache.read_bytes()
    assert s4u(cache).returncode == 1
    lab.samba_tool("delegation", "for-any-protocol", f"{front}$", "on")
    # The ticket for itself that cannot be forwarded is still in the cache.
    cache.write_bytes(fresh)
    shown = s4u(cache)
    assert shown.returncode == 0, shown.stderr


def test_the_back_end_says_who_may_delegate_to_it(lab: Lab, front: str, cache: Path) -> None:
    """Resource-based constrained delegation; Samba wants protocol transition allowed for it."""
    lab.samba_tool("delegation", "for-any-protocol", f"{front}$", "on")
    fresh = cache.read_bytes()
    without = s4u(cache)
    lab.samba_tool("delegation", "add-principal", "DBHOST$", f"{front}$")
    cache.write_bytes(fresh)
    shown = s4u(cache)
    lab.samba_tool("delegation", "del-principal", "DBHOST$", f"{front}$")
    lab.samba_tool("delegation", "for-any-protocol", f"{front}$", "off")
    assert without.returncode == 1
    assert shown.returncode == 0, shown.stderr


def test_a_sensitive_user_is_never_delegated(lab: Lab, constrained: None, cache: Path) -> None:
    del constrained
    with account_control(lab, "alice", NOT_DELEGATED):
        assert s4u(cache).returncode == 1


def test_a_sensitive_account_has_a_ticket_that_cannot_be_forwarded(
    lab: Lab, session: DomainSession, front: str, constrained: None, tmp_path: Path
) -> None:
    del constrained
    path = tmp_path / "krb5cc"
    with account_control(lab, f"{front}$", NOT_DELEGATED):
        ticket = session.acquire(front).ticket
        path.write_bytes(ticket.ccache)
        assert s4u(path).returncode == 1
    assert not ticket.forwardable
    assert "F" not in flags_of(path)


def test_an_account_gives_its_own_ticket_to_a_service(lab: Lab, cache: Path) -> None:
    """What ``curl --delegation`` and ``gssdelegation=1`` of PostgreSQL ask for."""
    keytab = str(lab.directory / "postgres.keytab")
    shown = call(cache, "/usr/bin/python3", "-c", DELEGATE, keytab)
    assert shown.stdout == f"{FRONT}$@{lab.realm}\n", shown.stderr


@pytest.mark.parametrize("number", [12, 13])
@pytest.mark.parametrize("by_steps", [False, True])
def test_a_simulated_kdc_that_refuses_the_option_is_asked_without(
    session: DomainSession,
    front: str,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    *,
    by_steps: bool,
) -> None:
    """Older KDCs answer KDC_ERR_POLICY or KDC_ERR_BADOPTION for a sensitive account."""
    real = tickets.exchange_at_once
    asked: list[bool] = []

    def exchange(principal: str, *arguments: Any, forwardable: bool, **options: Any) -> str:
        if principal.startswith(front):
            asked.append(forwardable)
        if forwardable:
            raise ExchangeError(KRB5_BASE + (25 if by_steps else number))
        return real(principal, *arguments, forwardable=forwardable, **options)

    refused = Krb5Refusal(KRB5_BASE + number)
    steps = krb5.get_init_creds_keytab

    def in_steps(context: Any, name: Any, options: Any, *more: Any) -> Any:
        if asked[-1:] == [True]:
            raise refused
        return steps(context, name, options, *more)

    monkeypatch.setattr(tickets, "exchange_at_once", exchange)
    monkeypatch.setattr(krb5, "get_init_creds_keytab", in_steps)
    session.facts()
    assert not session.acquire(front).ticket.forwardable
    # With the host's armour first, perhaps.
    assert asked in ([True, False], [True, True, False], [True, True, False, False])
