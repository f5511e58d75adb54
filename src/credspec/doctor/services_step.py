"""Whose the services are that containers may have tickets of: what such a ticket really opens."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from credspec.directory.service_owner import ServiceOwner, find_service_owner
from credspec.doctor.step import Finding, Step
from credspec.errors import Problem
from credspec.kerberos.service_names import ServiceName

if TYPE_CHECKING:
    from credspec.doctor.examination import Examination


SUITABLE: Final = (
    "tickets=services suits programs that use MIT Kerberos or Heimdal, Java and Go need "
    "tickets=broker, which suits all"
)
"""Which kind of tickets suits which clients; see docs/tickets-of-services.md."""


def services_step(services: Iterable[ServiceName]) -> Step:
    """Return the step that asks for the owners of services."""
    return Step(
        name="services",
        title="Services have accounts of their own",
        run=_look_at(tuple(services)),
        needs=("domain",),
    )


def _look_at(services: tuple[ServiceName, ...]) -> Callable[[Examination], Finding]:
    def look(examination: Examination) -> Finding:
        connection, facts = examination.connection, examination.facts
        assert connection is not None  # noqa: S101 - narrows for the type checker
        assert facts is not None  # noqa: S101 - narrows for the type checker
        shown, warnings = [], []
        for service in services:
            owner = find_service_owner(connection, facts, service.spn)
            shown.append(f"{service}: {owner.account if owner else 'nobody'}")
            warning = service_problem(service, owner, facts.dns_name)
            warnings += [warning] if warning else []
        return Finding(f"{', '.join(shown)}; {SUITABLE}", tuple(warnings))

    return look


def service_problem(
    service: ServiceName, owner: ServiceOwner | None, domain: str
) -> Problem | None:
    """Return what is doubtful about a service whose owner was asked for, None if nothing is."""
    where = f"service {service}"
    if owner is None:
        return Problem(
            code="service-without-owner",
            where=where,
            found=f"no account of {domain} has this service principal name",
            expected="a name that setspn -Q finds; one of a trusted domain is not looked for here",
            remedy="correct it, or let the service's account have it: setspn -S NAME ACCOUNT",
        )
    if owner.is_controller:
        return Problem(
            code="service-of-controller",
            where=where,
            found=f"it is {owner.account}'s, a DOMAIN CONTROLLER: a ticket of it opens every "
            "service of the controller, its shares and the directory among them",
            expected="a service with an account of its own",
            remedy="give such a ticket only to containers that need the directory, as an account "
            "with few rights there",
        )
    if owner.is_machine:
        return Problem(
            code="service-of-machine",
            where=where,
            found=f"it is {owner.account}'s, a computer: a ticket of it opens every service of "
            "that computer, such as its shares and its remote management",
            expected="a service with an account of its own",
            remedy="run the service as a gMSA or user, and give that the name: setspn -S",
        )
    return None
