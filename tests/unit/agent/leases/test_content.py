from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.agent.identities.identity import Identity, IdentityName
from credspec.agent.leases.content import (
    accounts_of,
    file_names,
    files_of,
    identity_names,
    scopes_in,
    with_dns_names,
)
from credspec.agent.leases.record import LeaseRecord
from credspec.errors import CredspecError
from credspec.kerberos.tickets import Ticket
from credspec.spec.document import CredentialSpec

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def spec(*accounts: tuple[str, str], default: str = "Web", netbios: str = "CONTOSO") -> Any:
    domain = {"DnsName": "contoso.com", "MachineAccountName": default}
    return CredentialSpec.from_json(
        {
            "CmsPlugins": ["ActiveDirectory"],
            "DomainJoinConfig": domain | ({"NetBiosName": netbios} if netbios else {}),
            "ActiveDirectoryConfig": {
                "GroupManagedServiceAccounts": [
                    {"Name": name, "Scope": scope} for name, scope in accounts
                ]
            },
        }
    )


OWN = (("Web", "contoso.com"), ("web", "CONTOSO"))


def record(*accounts: str, keytab: bool = False) -> LeaseRecord:
    return LeaseRecord(
        lease_id="0" * 32,
        container="c",
        runtime_state="/",
        uid=0,
        gid=0,
        domain="contoso.com",
        default_account="Web",
        accounts=accounts,
        created=NOW,
        keytab=keytab,
    )


def identity(account: str, domain: str, address: str, ticket: bytes | None = b"t") -> Identity:
    made = Identity(IdentityName(account, domain), NOW, NOW, kdc_addresses=(address,))
    if ticket is not None:
        made.ticket = Ticket(f"{account}$@{domain.upper()}", NOW, NOW, 18, ticket)
    return made


def test_accounts_of_the_own_domain_in_any_form() -> None:
    assert accounts_of(spec(*OWN, ("Logs$", "Contoso"))) == ("Web", "Logs")
    assert accounts_of(spec(("Web", "contoso.com."))) == ("Web",)
    assert accounts_of(spec(*OWN, default="Job")) == ("Job", "Web")


def test_accounts_of_other_domains() -> None:
    found = accounts_of(
        spec(*OWN, ("Logs", "emea.contoso.com"), ("Logs", "EMEA"), ("Web", "Other.Test"))
    )
    assert found == ("Web", "Logs@emea.contoso.com", "Logs@emea", "Web@other.test")
    assert scopes_in(found) == {"emea"}
    domains = {"emea": "emea.contoso.com"}
    assert with_dns_names(found, domains, "contoso.com") == (
        "Web",
        "Logs@emea.contoso.com",
        "Web@other.test",
    )


def test_another_name_of_the_own_domain() -> None:
    """A spec without NetBiosName leaves it to the directory what the scope is."""
    found = accounts_of(spec(("Web", "contoso.com"), ("Web", "CONTOSO"), netbios=""))
    domains = {"contoso": "contoso.com"}
    assert with_dns_names(found, domains, "contoso.com") == ("Web",)


def test_a_default_account_without_an_entry_is_of_the_own_domain() -> None:
    assert accounts_of(spec(("Web", "other.test"), default="Job")) == ("Job", "Web@other.test")


@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
def test_whatever_a_spec_says_no_file_is_elsewhere(name: str, scope: str) -> None:
    try:
        accounts = accounts_of(spec(*OWN, (name, scope)))
    except CredspecError:
        return
    resolved = with_dns_names(accounts, dict.fromkeys(scopes_in(accounts), "emea.test"), "x.test")
    for each in file_names(record(*resolved)):
        assert re.fullmatch(r"[^/\x00]{1,255}", each), each
        assert each.startswith("krb5")


def test_files_of_accounts_of_two_domains() -> None:
    lease = record("Web", "Logs", "Web@other.test")
    names = identity_names(lease, None)
    assert [(each.account, each.domain) for each in names] == [
        ("web", "contoso.com"),
        ("logs", "contoso.com"),
        ("web", "other.test"),
    ]
    files = files_of(
        lease,
        [
            identity("web", "other.test", "192.0.2.2", b"other"),
            identity("web", "contoso.com", "192.0.2.1", b"own"),
            identity("logs", "contoso.com", "192.0.2.1", b"logs"),
        ],
    )
    assert set(files) == file_names(lease)
    assert files["krb5cc"] == files["krb5cc_web"] == b"own"
    assert files["krb5cc_logs"] == b"logs"
    assert files["krb5cc_web@other.test"] == b"other"
    conf = files["krb5.conf"].decode()
    assert "default_realm = CONTOSO.COM" in conf
    assert "kdc = 192.0.2.1" in conf.partition("OTHER.TEST = {")[0]
    assert "kdc = 192.0.2.2" in conf.partition("OTHER.TEST = {")[2]


def test_what_an_adopted_identity_would_give_is_left_as_it_was() -> None:
    lease = record("Web", "Web@other.test")
    held = [
        identity("web", "contoso.com", "192.0.2.1"),
        identity("web", "other.test", "192.0.2.2", None),
    ]
    # Controllers that were located since are named, whoever's ticket is there.
    assert set(files_of(lease, held)) == {"krb5cc", "krb5cc_web", "krb5.conf"}
    held[1].kdc_addresses = ()
    assert set(files_of(lease, held)) == {"krb5cc", "krb5cc_web"}
    held[1].ticket = held[0].ticket
    assert set(files_of(lease, held)) == file_names(lease)


def test_one_account_has_one_cache() -> None:
    lease = record("Web")
    assert file_names(lease) == {"krb5cc", "krb5.conf"}
    assert file_names(record("Web", keytab=True)) == {"krb5cc", "krb5.conf", "krb5.keytab"}
    assert set(files_of(lease, [identity("web", "contoso.com", "192.0.2.1")])) == file_names(lease)


@pytest.mark.parametrize("directory", ["/run/credspec", "/run/user/7/credspec/leases/x", None])
@pytest.mark.parametrize("keytab", [False, True])
@pytest.mark.parametrize("replay_cache", [False, True])
@pytest.mark.parametrize("fallback", [False, True])
def test_krb5_conf_names_what_the_lease_has_where_its_programs_see_it(
    directory: str | None, *, keytab: bool, replay_cache: bool, fallback: bool
) -> None:
    lease = replace(record("Web", keytab=keytab), replay_cache=replay_cache, name_fallback=fallback)
    held = [identity("web", "contoso.com", "192.0.2.1")]
    text = files_of(lease, held, directory=directory)["krb5.conf"].decode()
    known = directory is not None
    assert (f"default_ccache_name = {directory}/krb5cc\n" in text) == known
    has_keytab = f"default_keytab_name = {directory}/krb5.keytab\n" in text
    assert has_keytab == ("keytab_name" in text) == (known and keytab)
    has_replays = f"default_rcache_name = file2:{directory}/rcache/%{{euid}}.rcache2\n" in text
    # A lease from before has no such directory, and its acceptors go on without.
    assert has_replays == ("rcache" in text) == (known and keytab and replay_cache)
    assert ("dns_canonicalize_hostname* = fallback" in text) == fallback
    assert ("dns_canonicalize_hostname = false" in text) != fallback


def test_a_domain_is_the_same_however_its_name_is_spelt() -> None:
    lease = record("Web", "Logs@other.test")
    held = [
        identity("web", "contoso.com", "192.0.2.1"),
        identity("logs", "other.test", "192.0.2.2"),
    ]
    assert files_of(replace(lease, domain="Contoso.COM"), held) == files_of(lease, held)
