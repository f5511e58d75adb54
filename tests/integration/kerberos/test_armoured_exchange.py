"""Authentication policies that say from which hosts an account may log on: FAST shows the host.

Samba enforces them for users only, so a user stands for a gMSA here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from credspec.directory.domain import DomainFacts
from credspec.errors import NotPermittedError
from credspec.kerberos.kdc_errors import PolicyRefusedError
from credspec.kerberos.keys import Enctype, derive_key
from credspec.kerberos.krb5_conf import AgentKrb5Conf
from credspec.kerberos.tickets import Ticket, ticket_from_keys
from credspec.lab.domain import Lab
from credspec.lab.provisioning import READABLE
from credspec.session import account_tickets
from credspec.session.domain_session import DomainSession
from credspec.session.host_identity import HOST_CACHE, MachineKeytab

PASSWORD = "Passw0rd-Silo-1!"


@pytest.fixture
def policy(lab: Lab, facts: DomainFacts) -> str:
    """A user who may log on only from domain computers."""
    computers = f"O:SYG:SYD:(XA;OICI;CR;;;WD;(Member_of_any {{SID({facts.sid}-515)}}))"
    policy = ("domain", "auth", "policy", "create", "--name=HostsOnly", "--enforce")
    lab.samba_tool("user", "create", "silouser", PASSWORD)
    lab.samba_tool(*policy, f"--user-allowed-to-authenticate-from={computers}")
    lab.samba_tool("user", "auth", "policy", "assign", "silouser", "--policy=HostsOnly")
    return f"silouser@{lab.realm}"


def test_a_policy_for_hosts_is_met_with_the_host_s_armour(
    lab: Lab, policy: str, host_identity: MachineKeytab, krb5_conf: AgentKrb5Conf
) -> None:
    del krb5_conf
    salt = f"{lab.realm}silouser"
    key = derive_key(PASSWORD.encode("utf-16-le"), Enctype.AES256_CTS_HMAC_SHA1_96, salt)
    wrong = derive_key("other".encode("utf-16-le"), Enctype.AES256_CTS_HMAC_SHA1_96, salt)
    for armor in (None, "MEMORY:without-a-ticket"):
        with pytest.raises(NotPermittedError, match=r"silo.*\[kdc-policy\]"):
            ticket_from_keys(policy, [key], armor=armor)
    assert host_identity.has_tgt
    assert ticket_from_keys(policy, [key], armor=HOST_CACHE).principal == policy
    with pytest.raises(NotPermittedError, match="kdc-key-refused"):
        ticket_from_keys(policy, [wrong], armor=HOST_CACHE)


def test_an_account_is_armoured_where_the_host_has_a_ticket(
    session: DomainSession, host_identity: MachineKeytab, monkeypatch: pytest.MonkeyPatch
) -> None:
    armours = watched(monkeypatch)
    host_identity.log_on()
    assert session.acquire(READABLE[0]).ticket.end > datetime.now(UTC)
    host_identity.forget()
    session.acquire(READABLE[0])
    assert armours == [HOST_CACHE, None]


def test_a_simulated_policy_lets_the_host_log_on_and_armour_from_then_on(
    session: DomainSession, host_identity: MachineKeytab, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.facts()
    host_identity.forget()
    armours = watched(monkeypatch, refuse_without=True)
    for _ in range(2):
        assert session.acquire(READABLE[0]).ticket.end > datetime.now(UTC)
    assert armours == [None, HOST_CACHE, HOST_CACHE]


def watched(monkeypatch: pytest.MonkeyPatch, *, refuse_without: bool = False) -> list[str | None]:
    """Note the armour of each exchange; perhaps refuse those without as a policy does."""
    armours: list[str | None] = []
    exchange = account_tickets.ticket_from_managed_password

    def watch(*arguments: Any, armor: str | None) -> Ticket:
        armours.append(armor)
        if refuse_without and armor is None:
            raise PolicyRefusedError.of("kdc-policy", "simulated")
        return exchange(*arguments, armor=armor)

    monkeypatch.setattr(account_tickets, "ticket_from_managed_password", watch)
    return armours
