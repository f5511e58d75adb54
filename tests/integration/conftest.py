"""The rooms of the project against the real domain, in this process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from credspec.directory.connection import Connection, Transport
from credspec.directory.domain import DomainFacts, read_domain_facts
from credspec.directory.locator import DnsResolver, DomainController, Locator
from credspec.kerberos.krb5_conf import AgentKrb5Conf
from credspec.lab.domain import Lab
from credspec.session.domain_session import DomainSession
from credspec.session.host_identity import MachineKeytab


@pytest.fixture(scope="session")
def krb5_conf(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> AgentKrb5Conf:
    """The agent's own krb5.conf, in front of the lab's."""
    path = tmp_path_factory.mktemp("krb5") / "krb5.conf"
    os.environ["KRB5_CONFIG"] = f"{path}:{lab.krb5_conf}"
    conf = AgentKrb5Conf(path)
    conf.set_kdcs(lab.realm, [lab.dc_address])
    return conf


@pytest.fixture
def host_identity(lab: Lab, krb5_conf: AgentKrb5Conf) -> MachineKeytab:
    identity = MachineKeytab(lab.host_keytab)
    identity.log_on()
    return identity


@pytest.fixture
def controller(lab: Lab) -> DomainController:
    return DomainController(lab.dc_host, (lab.dc_address,))


@pytest.fixture
def connection(host_identity: MachineKeytab, controller: DomainController) -> Iterator[Connection]:
    opened = Connection.open(controller)
    yield opened
    opened.close()


@pytest.fixture
def facts(connection: Connection) -> DomainFacts:
    return read_domain_facts(connection)


@pytest.fixture
def session(
    lab: Lab, host_identity: MachineKeytab, krb5_conf: AgentKrb5Conf
) -> Iterator[DomainSession]:
    opened = make_session(lab, host_identity, krb5_conf)
    yield opened
    opened.close()


def make_session(
    lab: Lab,
    host_identity: MachineKeytab,
    krb5_conf: AgentKrb5Conf,
    *,
    locator: Locator | None = None,
    transport: Transport = Transport.LDAP,
    ca_file: Path | None = None,
) -> DomainSession:
    """Return a session of the lab's domain with some part replaced."""
    return DomainSession(
        lab.dns_domain,
        host_identity=host_identity,
        locator=locator or Locator(DnsResolver()),
        transport=transport,
        ca_file=ca_file,
        krb5_conf=krb5_conf,
    )
