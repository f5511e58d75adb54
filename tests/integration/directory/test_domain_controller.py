"""Locating, binding and reading, against the real domain."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest

from credspec.directory.accounts import find_account, read_key_version, read_managed_password
from credspec.directory.connection import Connection, Transport
from credspec.directory.domain import DomainFacts, read_domain_facts
from credspec.directory.locator import DnsResolver, DomainController, Locator, SrvRecord
from credspec.errors import NotFoundError, NotPermittedError, UnreachableError, UsageError
from credspec.kerberos.krb5_conf import AgentKrb5Conf
from credspec.lab.domain import Lab
from credspec.lab.provisioning import FORBIDDEN, READABLE
from credspec.session.domain_session import DomainSession
from credspec.session.host_identity import MachineKeytab


def test_the_controller_is_located_by_dns(lab: Lab) -> None:
    found = Locator(DnsResolver()).locate(lab.dns_domain)
    assert found == [DomainController(lab.dc_host, (lab.dc_address,))]


def test_the_controller_tells_its_site_and_is_found_by_it(lab: Lab) -> None:
    [found] = Locator(DnsResolver()).locate(lab.dns_domain)
    assert found.site == "Default-First-Site-Name"
    assert found.is_closest
    assert found.latency_seconds is not None
    name = f"_ldap._tcp.{found.site}._sites.dc._msdcs.{lab.dns_domain}"
    assert [record.target for record in DnsResolver().srv(name)] == [lab.dc_host]
    assert Locator(DnsResolver()).locate(lab.dns_domain, site=found.site) == [found]


def test_a_controller_of_another_domain_is_unsuitable(lab: Lab) -> None:
    """As DNS records are that have outlived their controller."""

    class Stale(DnsResolver):
        def srv(self, name: str) -> Sequence[SrvRecord]:
            return super().srv(name.replace("other.test", lab.dns_domain))

    with pytest.raises(UnreachableError, match=r"does not serve the domain.*dc-unsuitable"):
        Locator(Stale()).locate("other.test")


def test_a_domain_that_dns_does_not_know(lab: Lab) -> None:
    del lab
    with pytest.raises(UnreachableError, match="domain-not-found"):
        Locator(DnsResolver()).locate("nowhere.test")


def test_facts_agree_with_samba(lab: Lab, facts: DomainFacts) -> None:
    assert (facts.dns_name, facts.netbios_name) == (lab.dns_domain, lab.netbios)
    assert (facts.forest, facts.realm) == (lab.dns_domain, lab.realm)
    dumped = subprocess.run(
        [
            *("ldbsearch", "-H", str(lab.directory / "dc/private/sam.ldb"), "-s", "base"),
            *("-b", facts.naming_context, "objectSid", "objectGUID"),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"objectSid: {facts.sid}\n" in dumped
    assert f"objectGUID: {facts.guid}\n" in dumped
    assert str(uuid.UUID(facts.guid)) == facts.guid


def test_a_sealed_answer_of_any_length_needs_no_buffer_of_that_length(
    host_identity: MachineKeytab, controller: DomainController, facts: DomainFacts
) -> None:
    """Unless it is said otherwise, the libraries take 16 MiB for each connection."""
    del host_identity

    def data_kib() -> int:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmData:"))

    before = data_kib()
    connection = Connection.open(controller)
    base = f"CN=Aggregate,CN=Schema,CN=Configuration,{facts.naming_context}"
    [entry] = connection.search(base, "(objectClass=*)", ["attributeTypes"], subtree=False)
    assert sum(len(value) for value in entry["attributetypes"]) > 2 * 65536
    assert data_kib() - before < 8 * 1024
    connection.close()


def test_ldaps_with_channel_binding_reads_the_password(
    lab: Lab, host_identity: MachineKeytab, controller: DomainController, facts: DomainFacts
) -> None:
    del host_identity
    connection = Connection.open(controller, Transport.LDAPS, ca_file=lab.directory / "ca.pem")
    account, password = read_managed_password(connection, facts, "WebApp01")
    connection.close()
    assert (account.account_name, len(password.current)) == ("WebApp01$", 256)


def test_the_connection_is_sealed_or_refused(
    monkeypatch: pytest.MonkeyPatch, host_identity: MachineKeytab, controller: DomainController
) -> None:
    """An SSF that no mechanism has must end in our refusal, never in a weaker bind."""
    del host_identity
    monkeypatch.setattr("credspec.directory.connection._SEAL_STRENGTH", 4096)
    with pytest.raises(NotPermittedError, match="ldap-no-mechanism"):
        Connection.open(controller)


@pytest.mark.parametrize("account", READABLE)
def test_passwords_that_this_host_may_read(
    connection: Connection, facts: DomainFacts, account: str
) -> None:
    """WebApp02 is allowed through a group in a group, the others directly."""
    found, password = read_managed_password(connection, facts, account.lower())
    assert found.account_name == f"{account}$"
    assert found.enabled
    assert len(password.current) == 256
    assert read_key_version(connection, found) >= 1


def test_a_refusal_says_who_may_and_how_to_allow_it(
    connection: Connection, facts: DomainFacts
) -> None:
    with pytest.raises(NotPermittedError) as caught:
        read_managed_password(connection, facts, FORBIDDEN)
    text = str(caught.value)
    assert "EXAMPLE\\Administrator" in text
    # Set-ADServiceAccount replaces the list: those of now are in the command, with this host.
    assert (
        "Set-ADServiceAccount 'Forbidden01' -PrincipalsAllowedToRetrieveManagedPassword "
        "'Administrator','LABHOST$'; or samba-tool service-account group-msa-membership add "
        "--name=Forbidden01 '--principal=LABHOST$'"
    ) in text


def test_a_disabled_account_is_seen_as_such(connection: Connection, facts: DomainFacts) -> None:
    assert not find_account(connection, facts, "Disabled01").enabled


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("Nobody01", "account-not-found"),
        ("alice", "account-wrong-class"),
        ("LABHOST", "account-wrong-class"),
        ("DC1", "account-wrong-class"),
    ],
)
def test_what_is_no_gmsa_is_not_taken_for_one(
    connection: Connection, facts: DomainFacts, name: str, code: str
) -> None:
    with pytest.raises(NotFoundError, match=code):
        find_account(connection, facts, name)


@pytest.mark.parametrize("name", ["*", "WebApp0*", "a)(cn=*", "a\\2a", "WebApp01\n", ".."])
def test_hostile_names_find_nothing(connection: Connection, facts: DomainFacts, name: str) -> None:
    with pytest.raises((NotFoundError, UsageError)):
        find_account(connection, facts, name)


class DeadControllerFirst:
    """Real DNS, with a controller put in front that takes no connection."""

    def __init__(self) -> None:
        self._real = DnsResolver()

    def srv(self, name: str) -> Sequence[SrvRecord]:
        return [SrvRecord(0, 100, 389, "dead.example.test"), *self._real.srv(name)]

    def addresses(self, host: str) -> Sequence[str]:
        # 192.0.2.0/24 is nobody's; 127.0.0.9 refuses.
        return ["127.0.0.9"] if host.startswith("dead.") else self._real.addresses(host)


def test_the_next_controller_is_asked_when_one_is_dead(
    lab: Lab, host_identity: MachineKeytab, krb5_conf: AgentKrb5Conf
) -> None:
    session = DomainSession(
        lab.dns_domain,
        host_identity=host_identity,
        locator=Locator(DeadControllerFirst()),
        transport=Transport.LDAP,
        ca_file=None,
        krb5_conf=krb5_conf,
    )
    assert session.acquire("WebApp01").account_name == "WebApp01$"
    session.close()


def test_a_held_connection_survives_a_restart_of_the_controller(
    lab: Lab, session: DomainSession
) -> None:
    session.acquire("WebApp01")
    lab.stop_dc()
    with pytest.raises(UnreachableError):
        session.acquire("WebApp01")
    lab.start_dc()
    assert session.acquire("WebApp01").account_name == "WebApp01$"


def test_facts_are_read_from_the_first_bind_on(
    host_identity: MachineKeytab, controller: DomainController
) -> None:
    del host_identity
    first = Connection.open(controller)
    second = Connection.open(controller)
    assert read_domain_facts(first) == read_domain_facts(second)
    first.close()
    second.close()
