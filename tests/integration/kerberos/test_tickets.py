"""Keys and tickets against the domain's own; the oracle is Samba's export of the account's keys."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import krb5
import pytest

from credspec.agent.domain_session import DomainSession
from credspec.agent.host_identity import MachineKeytab
from credspec.directory.accounts import read_managed_password
from credspec.directory.connection import Connection
from credspec.directory.domain import DomainFacts
from credspec.directory.managed_password import ManagedPassword
from credspec.errors import NotPermittedError
from credspec.kerberos.as_exchange import ExchangeError
from credspec.kerberos.keys import Enctype, Key, computer_salt, derive_keys
from credspec.kerberos.tickets import (
    ticket_from_keys,
    ticket_from_keytab,
    ticket_from_managed_password,
)
from credspec.lab.domain import Lab, run_tool
from credspec.lab.provisioning import HOST_ACCOUNT


def exported_keys(lab: Lab, account: str, path: Path) -> dict[int, bytes]:
    lab.samba_tool(
        "domain", "exportkeytab", str(path), f"--principal={account}$", "--only-current-keys"
    )
    context = krb5.init_context()
    table = krb5.kt_resolve(context, f"FILE:{path}".encode())
    return {entry.key.enctype: entry.key.data for entry in table}


@pytest.mark.parametrize("account", ["WebApp01", "WebApp03", "WebApp05"])
def test_all_three_keys_are_the_domains(
    lab: Lab, connection: Connection, facts: DomainFacts, tmp_path: Path, account: str
) -> None:
    _, password = read_managed_password(connection, facts, account)
    derived = derive_keys(password.current, computer_salt(facts.realm, account))
    oracle = exported_keys(lab, account, tmp_path / "oracle.keytab")
    assert {int(key.enctype): key.value for key in derived} == oracle


def test_the_domain_answers_to_the_ticket(
    lab: Lab, connection: Connection, facts: DomainFacts, tmp_path: Path
) -> None:
    account, password = read_managed_password(connection, facts, "WebApp01")
    ticket = ticket_from_managed_password(account.account_name, facts.realm, password)
    assert ticket.end - ticket.start >= timedelta(hours=9)
    cache = tmp_path / "krb5cc"
    cache.write_bytes(ticket.ccache)
    answer = subprocess.run(
        [
            *("env", f"KRB5CCNAME=FILE:{cache}", "ldapwhoami", "-N", "-Q", "-Y", "GSSAPI"),
            *("-H", f"ldap://{lab.dc_host}"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == "u:EXAMPLE\\WebApp01$"


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Return what counts the requests to KDCs since it was called last, by libkrb5's trace."""
    trace = tmp_path / "trace"
    monkeypatch.setenv("KRB5_TRACE", str(trace))

    def count() -> int:
        found = trace.read_text().count("Sending request (") if trace.exists() else 0
        trace.unlink(missing_ok=True)
        return found

    return count


def test_a_key_gets_its_ticket_in_one_round_trip(
    host_identity: MachineKeytab,
    connection: Connection,
    facts: DomainFacts,
    asked: Callable[[], int],
) -> None:
    _, password = read_managed_password(connection, facts, "WebApp01")
    asked()
    assert ticket_from_managed_password("WebApp01$", facts.realm, password).principal
    assert asked() == 1
    assert ticket_from_keytab(host_identity.name, host_identity.keytab).principal
    assert asked() == 1
    service = f"ldap/dc1.{facts.dns_name}"
    assert ticket_from_keytab(host_identity.name, host_identity.keytab, service=service).principal
    assert asked() == 1


def test_a_kdc_that_wants_more_round_trips_gets_them(
    connection: Connection,
    facts: DomainFacts,
    asked: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if it refused the timestamp that comes unasked, which Samba's does not."""
    refused = ExchangeError(-1765328384 + 25)  # KDC_ERR_PREAUTH_REQUIRED

    def refuse(*_: object, **__: object) -> str:
        raise refused

    monkeypatch.setattr("credspec.kerberos.tickets.exchange_at_once", refuse)
    _, password = read_managed_password(connection, facts, "WebApp01")
    asked()
    assert ticket_from_managed_password("WebApp01$", facts.realm, password).principal
    assert asked() == 2


def test_a_wrong_key_of_the_host_is_told_to_the_domain_once(
    host_identity: MachineKeytab, facts: DomainFacts, asked: Callable[[], int]
) -> None:
    """Each try could count towards a lockout."""
    wrong = [Key(Enctype.AES256_CTS_HMAC_SHA1_96, b"x" * 32)]
    with pytest.raises(NotPermittedError, match="kdc-key-refused"):
        ticket_from_keys(host_identity.name, wrong)
    assert asked() == 1


@pytest.mark.parametrize("enctype", [17, 18, 23])
def test_each_enctype_alone_gets_a_ticket(
    connection: Connection, facts: DomainFacts, enctype: int
) -> None:
    _, password = read_managed_password(connection, facts, "WebApp01")
    keys = derive_keys(password.current, computer_salt(facts.realm, "WebApp01"))
    ticket = ticket_from_keys(f"WebApp01$@{facts.realm}", [k for k in keys if k.enctype == enctype])
    assert ticket.principal == f"WebApp01$@{facts.realm}"


def test_the_other_password_is_tried_when_one_is_refused(
    connection: Connection, facts: DomainFacts
) -> None:
    _, real = read_managed_password(connection, facts, "WebApp01")
    wrong = bytes(reversed(real.current))
    swapped = ManagedPassword(wrong, real.current, timedelta(days=1), timedelta(days=1))
    assert ticket_from_managed_password("WebApp01$", facts.realm, swapped).principal
    near = ManagedPassword(wrong, real.current, timedelta(minutes=1), timedelta(days=1))
    assert ticket_from_managed_password("WebApp01$", facts.realm, near).principal


def test_wrong_passwords_are_refused_by_name(connection: Connection, facts: DomainFacts) -> None:
    _, real = read_managed_password(connection, facts, "WebApp01")
    wrong = ManagedPassword(
        bytes(reversed(real.current)), None, timedelta(days=1), timedelta(days=1)
    )
    with pytest.raises(NotPermittedError, match="kdc-key-refused"):
        ticket_from_managed_password("WebApp01$", facts.realm, wrong)


def test_a_disabled_account(connection: Connection, facts: DomainFacts) -> None:
    account, password = read_managed_password(connection, facts, "Disabled01")
    with pytest.raises(NotPermittedError, match="kdc-account-disabled"):
        ticket_from_managed_password(account.account_name, facts.realm, password)


def test_an_unknown_principal(host_identity: MachineKeytab, facts: DomainFacts) -> None:
    del host_identity
    password = ManagedPassword(b"\x41\x00" * 128, None, timedelta(1), timedelta(1))
    with pytest.raises(NotPermittedError, match="kdc-principal-unknown"):
        ticket_from_managed_password("Nobody01$", facts.realm, password)


@pytest.fixture
def renamed(lab: Lab) -> Iterator[str]:
    """A gMSA whose keys are of the name that it had before."""
    account, old, new = "--name=Before01", "Before01$", "After01$"
    lab.samba_tool("service-account", "create", account, "--dns-host-name=before.example.test")
    lab.samba_tool("user", "enable", old)
    lab.samba_tool("spn", "add", "HTTP/Renamed.Example.test", old)
    lab.samba_tool(
        *("service-account", "group-msa-membership", "add"), account, f"--principal={HOST_ACCOUNT}"
    )
    rename(lab, new)
    yield new.removesuffix("$")
    rename(lab, old)
    lab.samba_tool("service-account", "delete", account)


def rename(lab: Lab, name: str) -> None:
    dn = f"CN=Before01,CN=Managed Service Accounts,{lab.domain_dn}"
    ldif = f"dn: {dn}\nchangetype: modify\nreplace: sAMAccountName\nsAMAccountName: {name}\n"
    run_tool(["ldbmodify", "-H", str(lab.directory / "dc/private/sam.ldb")], ldif)


def keys_in(keytab: Path, principal: str) -> set[tuple[int, bytes]]:
    table = krb5.kt_resolve(krb5.init_context(), f"FILE:{keytab}".encode())
    return {
        (entry.key.enctype, entry.key.data)
        for entry in table
        if (entry.principal.name or b"").decode() == principal
    }


def test_the_keytab_of_a_renamed_account_has_the_keys_that_the_domain_has(
    lab: Lab, session: DomainSession, renamed: str, tmp_path: Path
) -> None:
    keytab, oracle = tmp_path / "krb5.keytab", tmp_path / "oracle.keytab"
    made = session.acquire_with_keytab(renamed).keytab
    assert made is not None
    keytab.write_bytes(made)
    expected = set(exported_keys(lab, renamed, oracle).items())
    names = ["HTTP/Renamed.Example.test", "HTTP/renamed.example.test", "http/renamed.example.test"]
    for name in (f"{renamed}$", *names):
        assert keys_in(keytab, f"{name}@{lab.realm}") >= expected, name
    # Another program logs on with it, whose library asks for the salt and does not use it.
    cache = {"KRB5CCNAME": f"FILE:{tmp_path}/krb5cc"}
    kinit = ["kinit", "-kt", str(keytab), f"{renamed}$"]
    subprocess.run(kinit, env=os.environ | cache, check=True)
    for name in names:
        kvno = ["kvno", "-q", "-e", "aes256-cts", "-k", str(keytab), name]
        subprocess.run(kvno, env=os.environ | cache, check=True)


def test_a_renamed_account_s_key_is_refused_once(
    session: DomainSession, renamed: str, asked: Callable[[], int]
) -> None:
    """Each refused key could count towards a lockout: the salt is known from then on."""
    session.facts()
    asked()
    assert session.acquire(renamed).ticket.salt == "EXAMPLE.TESThostbefore01.example.test"
    assert asked() == 3, "a refusal, the salt, and the ticket"
    session.acquire_with_keytab(renamed)
    assert asked() == 1
