"""What the agent holds and what can expire: tried past its end, with tickets that live for seconds.

A connection, a host's ticket, a provided account's logon, the addresses of KDCs, a domain's facts:
when one of them is good no longer, it is got again, and no container notices.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import krb5
import pytest

from credspec.directory.connection import Connection, Transport
from credspec.directory.locator import DnsResolver, Locator
from credspec.errors import UnreachableError
from credspec.kerberos.kdc_errors import KdcUnreachableError
from credspec.kerberos.krb5_conf import AgentKrb5Conf
from credspec.lab.domain import Lab
from credspec.providers.provider import GivenAccount, HostAccount
from credspec.providers.selection import Providers
from credspec.session.domain_session import DomainSession
from credspec.session.host_identity import HostIdentity, MachineKeytab
from credspec.session.provided_identity import ProvidedIdentity
from support.agent.agent_process import AgentProcess

LIFE = 10
"""The lifetime of tickets here, in seconds."""

SHORT = f"[libdefaults]\n ticket_lifetime = {LIFE}s\n"
Clock = Callable[[], datetime]


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def short_lives(
    krb5_conf: AgentKrb5Conf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AgentKrb5Conf:
    path = tmp_path / "short.conf"
    path.write_text(SHORT)
    monkeypatch.setenv("KRB5_CONFIG", f"{path}:{os.environ['KRB5_CONFIG']}")
    return krb5_conf


@pytest.fixture(scope="module")
def reader(lab: Lab) -> Iterator[HostAccount]:
    """A user that may read WebApp02's password."""
    password = secrets.token_urlsafe(24) + "aA1!"
    lab.samba_tool("user", "create", "held-reader", "--random-password")
    lab.samba_tool("user", "setpassword", "held-reader", f"--newpassword={password}")
    lab.samba_tool("group", "addmembers", "LabHosts", "held-reader")
    yield HostAccount(lab.dns_domain, "held-reader", password)
    lab.samba_tool("user", "delete", "held-reader")


def machine(lab: Lab, clock: Clock) -> HostIdentity:
    return MachineKeytab(lab.host_keytab, cache="MEMORY:held-machine", now=clock)


@pytest.fixture(params=["machine", "provided"])
def identity(
    request: pytest.FixtureRequest, lab: Lab, reader: HostAccount
) -> Callable[[Clock], HostIdentity]:
    """Make a host identity of either kind, with a clock."""
    if request.param == "machine":
        return lambda clock: machine(lab, clock)
    source = GivenAccount(reader, lab.dns_domain)
    return lambda clock: ProvidedIdentity(source, lab.dns_domain, Providers(), now=clock)


def session_of(
    lab: Lab, identity: HostIdentity, krb5_conf: AgentKrb5Conf, clock: Clock = now
) -> DomainSession:
    return DomainSession(
        lab.dns_domain,
        host_identity=identity,
        locator=Locator(DnsResolver()),
        transport=Transport.LDAP,
        ca_file=None,
        krb5_conf=krb5_conf,
        now=clock,
    )


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When connections were opened."""
    moments: list[float] = []
    real = Connection.open.__func__  # type: ignore[attr-defined]

    def counted(cls: type[Connection], *arguments: object, **options: object) -> Connection:
        moments.append(time.monotonic())
        return real(cls, *arguments, **options)

    monkeypatch.setattr(Connection, "open", classmethod(counted))
    return moments


def outlive() -> None:
    """Wait until every ticket has ended, and the controller has ended what was held by one."""
    time.sleep(LIFE + 4)


def test_a_logon_is_made_again_before_it_expires(
    lab: Lab,
    identity: Callable[[Clock], HostIdentity],
    short_lives: AgentKrb5Conf,
    opened: list[float],
) -> None:
    session = session_of(lab, identity(now), short_lives)
    session.acquire("WebApp02")
    outlive()
    ticket = session.acquire("WebApp02").ticket
    assert ticket.end > now()
    # No request was spent on the connection that had ended.
    assert len(opened) == 2
    session.close()


def test_a_connection_that_the_controller_ended_costs_nothing(
    lab: Lab,
    identity: Callable[[Clock], HostIdentity],
    short_lives: AgentKrb5Conf,
    opened: list[float],
) -> None:
    """It sends a notice of disconnection first; the host's clock says that all lasts."""
    begin = now()
    session = session_of(lab, identity(now), short_lives, lambda: begin)
    session.acquire("WebApp02")
    outlive()
    session.acquire("WebApp02")
    assert len(opened) == 2
    session.close()


def test_a_host_ticket_that_the_controller_refuses_costs_nothing(
    lab: Lab,
    identity: Callable[[Clock], HostIdentity],
    short_lives: AgentKrb5Conf,
    opened: list[float],
) -> None:
    """Neither the session nor the identity knows that its ticket has ended."""
    begin = now()
    session = session_of(lab, identity(lambda: begin), short_lives, lambda: begin)
    session.acquire("WebApp02")
    outlive()
    session.acquire("WebApp02")
    assert len(opened) == 3, "with what was held, then with a new ticket"
    session.close()


def test_facts_and_names_outlive_a_logon(
    lab: Lab, short_lives: AgentKrb5Conf, opened: list[float]
) -> None:
    begin = now()
    session = session_of(lab, machine(lab, now), short_lives, lambda: begin)
    facts = session.facts()
    outlive()
    assert session.read_facts() == facts
    assert session.find("WebApp01").account_name == "WebApp01$"
    assert len(opened) == 2
    session.close()


def test_addresses_of_kdcs_that_have_gone_are_looked_up_again(
    lab: Lab, tmp_path: Path, opened: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is held and well; the KDCs found with it have moved."""
    # Nothing else names any: the lab's own krb5.conf would.
    monkeypatch.setenv("KRB5_CONFIG", str(tmp_path / "krb5.conf"))
    krb5_conf = AgentKrb5Conf(tmp_path / "krb5.conf")
    session = session_of(lab, machine(lab, now), krb5_conf)
    session.acquire("WebApp01")
    for number, acquire in enumerate((session.acquire, session.acquire_with_keytab)):
        krb5_conf.set_kdcs(lab.realm, ["127.0.0.9"])  # nobody listens there
        assert acquire("WebApp01").ticket.principal == f"WebApp01$@{lab.realm}"
        assert len(opened) == number + 2
    session.close()


def test_what_was_found_just_now_is_not_looked_up_again(
    lab: Lab, krb5_conf: AgentKrb5Conf, opened: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_of(lab, machine(lab, now), krb5_conf)
    monkeypatch.setattr(
        "credspec.session.account_tickets.ticket_from_managed_password",
        lambda *_, **_options: (_ for _ in ()).throw(
            KdcUnreachableError.of("kdc-unreachable", "simulated")
        ),
    )
    with pytest.raises(UnreachableError, match="simulated"):
        session.acquire("WebApp01")
    assert len(opened) == 1
    session.close()


def test_containers_start_after_the_hosts_logon_has_expired(lab: Lab, tmp_path: Path) -> None:
    """The agent as a process: three at once, each time after all that it held has ended."""
    conf = tmp_path / "short.conf"
    conf.write_text(SHORT)
    agent = AgentProcess(lab, tmp_path)
    try:
        agent.start(KRB5_CONFIG=f"{conf}:{lab.krb5_conf}")
        failures: list[BaseException] = []

        def put(number: int) -> None:
            try:
                agent.put(number)
            except BaseException as error:  # noqa: BLE001 - shown by the test
                failures.append(error)

        for first in (1, 4, 7):
            numbers = range(first, first + 3)
            for number in numbers:
                agent.mount(number)
            threads = [threading.Thread(target=put, args=(number,)) for number in numbers]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            assert failures == [], agent.log.read_text()[-3000:]
            for number in numbers:
                cache = krb5.cc_resolve(
                    krb5.init_context(), f"FILE:{agent.lease_directory(number)}/krb5cc".encode()
                )
                [ticket] = cache
                assert ticket.times.endtime > time.time()
            outlive()
    finally:
        agent.close()
