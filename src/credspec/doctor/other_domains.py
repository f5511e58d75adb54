"""The other domains whose accounts a spec names: found, and logged on to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from credspec.directory.connection import Connection
from credspec.directory.domain import (
    DomainFacts,
    check_netbios_name,
    read_domain_facts,
    read_trusted_domain,
)
from credspec.directory.locator import DnsResolver, Locator, valid_domain
from credspec.doctor.step import Finding, Step
from credspec.errors import CredspecError, NotFoundError, UnreachableError

if TYPE_CHECKING:
    from credspec.doctor.examination import Examination


@dataclass(frozen=True, slots=True)
class OtherDomain:
    """A domain beside the spec's own: what it is, and the connection that was logged on to it."""

    connection: Connection
    facts: DomainFacts


def other_domain_step(scope: str) -> Step:
    """Return the step that logs on to a domain, which a spec names by DNS or NetBIOS name."""
    look: Callable[[Examination], Finding] = lambda examination: _log_on(examination, scope)  # noqa: E731
    return Step(
        name="other-domain",
        title="Another domain of the spec takes the host's logon",
        run=look,
        needs=("domain",),
        subject=scope,
    )


def _log_on(examination: Examination, scope: str) -> Finding:
    connection, facts = examination.connection, examination.facts
    assert connection is not None  # noqa: S101 - narrows for the type checker
    assert facts is not None  # noqa: S101 - narrows for the type checker
    if scope.lower() in {facts.netbios_name.lower(), facts.dns_name.lower()}:
        examination.others[scope] = OtherDomain(connection, facts)
        return Finding(f"it is the spec's own, {facts.dns_name}")
    domain = _dns_name(connection, facts, scope)
    config = examination.config
    controllers = Locator(DnsResolver(), preferences=config.domains).locate(
        domain, port=config.transport.port
    )
    addresses = [address for controller in controllers for address in controller.addresses]
    examination.krb5_conf.set_kdcs(domain.upper(), addresses)
    failures: list[CredspecError] = []
    for controller in controllers:
        opened = None
        try:
            opened = Connection.open(
                controller,
                config.transport,
                ca_file=config.ca_file,
                ccache=examination.identity.cache,
            )
            theirs = read_domain_facts(opened, domain)
            if "." not in scope:
                check_netbios_name(theirs, scope, facts.dns_name)
        except CredspecError as error:
            failures.append(error)
            if opened is not None:
                opened.close()
            continue
        examination.others[scope] = OtherDomain(opened, theirs)
        problems = tuple(problem for error in failures for problem in error.problems)
        return Finding(f"{theirs.dns_name}: logged on at {controller.host}", problems)
    if not failures:
        raise UnreachableError.of(
            "dc-unreachable", "no domain controller", where=f"domain {domain}"
        )
    raise failures[0]


def _dns_name(connection: Connection, facts: DomainFacts, scope: str) -> str:
    if "." in scope:
        return valid_domain(scope.lower().removesuffix("."))
    found = read_trusted_domain(connection, facts, scope)
    if found is None:
        raise NotFoundError.of(
            "domain-not-trusted",
            f"{facts.dns_name} knows no trusted domain with the NetBIOS name {scope[:80]!r}",
            where=f"domain {scope[:80]}",
            remedy="give its DNS name as the account's Scope, and check that a trust exists",
        )
    return found
