"""Rules about the options of tickets that files of other tools give a container."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from credspec.contract.errors import ShimError
from credspec.contract.service_names import parts_of
from credspec.contract.ticket_options import KEYTAB, SERVICES, TICKETS, kind_of_tickets
from credspec.errors import Problem
from credspec.spec.rules.rule import Rule

# Classes that computers have by themselves: aliases of HOST, and those of domain controllers.
_OF_MACHINES: Final = frozenset(
    {"host", "cifs", "rpc", "rpcss", "wsman", "termsrv", "restrictedkrbhost", "dcom", "spooler"}
    | {"ldap", "gc", "dns", "schedule", "eventlog", "samss", "browser", "netlogon"}
)


class TicketOptions(NamedTuple):
    """The options of a container's tickets by annotation, and the pointers of those that it has."""

    values: dict[str, str]
    where: dict[str, str]

    def services(self) -> list[str]:
        """Return what it asks for tickets of, as far as that is understood."""
        return [text.strip() for text in self.values.get(SERVICES[0], "").split(",")]


class ServicesOfMachines(Rule[TicketOptions]):
    """A container asks for tickets of a service that belongs to a computer."""

    code = "lint-service-of-machine"
    reason = (
        "The server's name in a ticket is not sealed: a ticket of one service of a computer opens "
        "all of them, those of a domain controller even the directory."
    )

    def check(self, part: TicketOptions) -> Iterator[Problem]:
        """Yield a problem for each service of a class that computers have."""
        for text in part.services():
            parts = parts_of(text, is_pattern=True)
            if parts is not None and parts[0].lower() in _OF_MACHINES:
                yield Problem(
                    self.code,
                    f"{text}, which belongs to a computer: its ticket opens all services of that",
                    part.where[SERVICES[0]],
                    "a service with an account of its own",
                    "let credspec check --service say whose it is",
                )


def option_problem(part: TicketOptions) -> Problem | None:
    """Return why a container with these options would not start, None if it would."""
    values = part.values
    keytab = values.get(KEYTAB[0], "").lower() in {"true", "1"}
    try:
        kind_of_tickets(values.get(TICKETS[0]), values.get(SERVICES[0]), keytab=keytab)
    except ShimError as error:
        where = next(part.where[name] for name, _ in (TICKETS, SERVICES) if name in part.where)
        return Problem(error.code, error.text, where)
    return None


SERVICES_OF_MACHINES = ServicesOfMachines()
