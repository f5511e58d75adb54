"""One account of a domain as this host holds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from credspec.errors import CredspecError, Problem
from credspec.kerberos.ticket_life import is_fit_to_give, state_of
from credspec.kerberos.tickets import Ticket
from credspec.providers.provider import HostSource
from credspec.session.domain_session import Acquisition

SessionKey = tuple[str, HostSource | None]
"""A domain, and what this host logs on to it with."""


class IdentityName(NamedTuple):
    """Names an identity: account without ``$`` and domain, both in lower case.

    `source` is what the host logs on with to read the password, None for the machine identity: what
    one may read another may not.
    """

    account: str
    domain: str
    source: HostSource | None = None

    def __str__(self) -> str:
        name = f"{self.account}@{self.domain}"
        return name if self.source is None else f"{name} ({self.source})"

    @property
    def session(self) -> SessionKey:
        """The key of the session that acquires it."""
        return self.domain, self.source


@dataclass(slots=True)
class Identity:
    """An account as this host holds it.

    Its leases' tickets are good from `start` to `end`. `ticket` is None for an identity that was
    adopted from an earlier run and not acquired since; so is `password_due`, the time at which the
    domain said to ask for the password again. `keytab` is there while a holder wants it, and
    `keytab_due` is when another one must be made. `refusal` is what the directory or the KDC said
    since the ticket was obtained, if they would give no other: then nobody else is given this one.
    """

    name: IdentityName
    start: datetime
    end: datetime
    ticket: Ticket | None = None
    password_due: datetime | None = None
    keytab: bytes | None = field(default=None, repr=False)
    keytab_due: datetime | None = None
    kdc_addresses: tuple[str, ...] = ()
    holders: set[str] = field(default_factory=set)
    last_error: CredspecError | None = None
    refusal: CredspecError | None = None

    def is_fit(self, now: datetime) -> bool:
        """Return whether its ticket may be given to a container now."""
        return self.ticket is not None and is_fit_to_give(self.start, self.end, now)

    def take(self, acquired: Acquisition, kdc_addresses: tuple[str, ...]) -> None:
        """Replace the ticket by a new one."""
        self.ticket = acquired.ticket
        self.start, self.end = acquired.ticket.start, acquired.ticket.end
        self.password_due = acquired.password_due
        self.keytab, self.keytab_due = acquired.keytab, acquired.keytab_due
        self.kdc_addresses = kdc_addresses
        self.last_error = self.refusal = None

    def may_be_given(self, now: datetime, *, keytab: bool) -> bool:
        """Return whether a new holder may have it now, with `keytab` its keytab, too."""
        return self.is_fit(now) and self.refusal is None and not (keytab and self.keytab is None)

    def why_not_given(self, now: datetime) -> tuple[Problem, ...]:
        """Return why its ticket is given to nobody; nothing if there is none."""
        if self.ticket is None:
            return ()
        refused = self.refusal.problems if self.refusal is not None else ()
        if self.is_fit(now):
            return refused
        return (
            *refused,
            Problem(
                code="ticket-unfit",
                found=f"the ticket that is held {state_of(self.start, self.end, now)}",
                where=f"identity {self.name.account}@{self.name.domain}",
                expected="more than a quarter of its lifetime left, and no start in the future",
            ),
        )
