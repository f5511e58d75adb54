"""The session of a domain as a host's configuration wants it, for the agent and for commands."""

from __future__ import annotations

from credspec.config.host import Config
from credspec.directory.locator import DnsResolver, Locator
from credspec.kerberos.krb5_conf import AgentKrb5Conf
from credspec.session.domain_session import DomainSession
from credspec.session.host_identity import HostIdentity


def open_session(
    config: Config, identity: HostIdentity, krb5_conf: AgentKrb5Conf, domain: str
) -> DomainSession:
    """Return a session of a domain; it connects when it is first used."""
    return DomainSession(
        domain,
        host_identity=identity,
        locator=Locator(DnsResolver(), preferences=config.domains),
        transport=config.transport,
        ca_file=config.ca_file,
        krb5_conf=krb5_conf,
    )
