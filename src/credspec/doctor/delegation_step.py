"""What the domain lets an account delegate, and what it refuses: never a failure of its own."""

from __future__ import annotations

from typing import Final

from credspec.directory.accounts import accounts_with_service_principal_name
from credspec.directory.connection import Connection
from credspec.directory.delegation import Delegation, read_delegation
from credspec.directory.domain import DomainFacts
from credspec.doctor.step import Finding
from credspec.errors import Problem
from credspec.kerberos.tickets import Ticket

_SHOWN: Final = 6
_LOOKED_UP: Final = 20


def delegation_finding(
    connection: Connection, facts: DomainFacts, account_name: str, ticket: Ticket
) -> Finding:
    """Return what an account may delegate; `ticket` is its TGT, `account_name` ends with ``$``."""
    found = read_delegation(connection, facts, account_name)
    if found is None:
        return Finding("the directory does not show it")
    problems = delegation_problems(account_name, found, forwardable=ticket.forwardable)
    for service in found.services[:_LOOKED_UP]:
        if not accounts_with_service_principal_name(connection, facts, service):
            problems += (_unknown_service(account_name, service, facts.dns_name),)
    forwarding = "can" if ticket.forwardable else f"cannot ({_why_not(found)})"
    return Finding(f"{_shown(found)}; its own ticket {forwarding} be forwarded", problems)


def delegation_problems(
    account_name: str, found: Delegation, *, forwardable: bool
) -> tuple[Problem, ...]:
    """Return what is doubtful: `delegation-not-forwardable`, `delegation-unconstrained`."""
    where = f"account {account_name}"
    problems: list[Problem] = []
    if found.services and not forwardable:
        problems.append(
            Problem(
                code="delegation-not-forwardable",
                where=where,
                found=f"it may delegate, but the ticket that it gets is not forwardable: "
                f"{_why_not(found)}",
                expected="a forwardable ticket, without which the domain refuses constrained "
                "delegation (KDC_ERR_BADOPTION)",
                remedy="take away 'Account is sensitive and cannot be delegated' "
                "(Set-ADAccountControl -AccountNotDelegated $false), and take it out of Protected "
                "Users",
            )
        )
    if found.any_service:
        problems.append(
            Problem(
                code="delegation-unconstrained",
                where=where,
                found="it is trusted for delegation to any service (TRUSTED_FOR_DELEGATION)",
                expected="a list of services (msDS-AllowedToDelegateTo), or none",
                remedy="its containers receive whole tickets of their callers: name the services "
                "instead (Set-ADAccountControl -TrustedForDelegation $false, samba-tool delegation "
                "for-any-service off, delegation add-service)",
            )
        )
    return tuple(problems)


def _unknown_service(account_name: str, service: str, domain: str) -> Problem:
    return Problem(
        code="delegation-service-unknown",
        where=f"account {account_name}",
        found=f"it may delegate to {service}, which no account of {domain} has as a service "
        "principal name",
        remedy="set the name at the service's account (setspn -S), or correct the list; services "
        "of other domains take resource-based delegation only",
    )


def _shown(found: Delegation) -> str:
    if found.any_service:
        return "it delegates its callers to any service"
    if not found.services:
        return "it is not trusted for delegation, unless a service says so itself (resource-based)"
    services = ", ".join(found.services[:_SHOWN]) + (" ..." if len(found.services) > _SHOWN else "")
    callers = "callers of any protocol" if found.any_protocol else "callers with Kerberos tickets"
    return f"it delegates {callers} to {services}"


def _why_not(found: Delegation) -> str:
    if found.is_sensitive:
        return "the account is sensitive and cannot be delegated"
    if found.is_protected:
        return "the account is in Protected Users"
    return "the domain made it so"
