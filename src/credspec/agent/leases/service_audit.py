"""Decisions about tickets of services: a line of the audit log each, and their numbers."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from credspec.agent.audit import NOBODY, AuditLog
from credspec.agent.leases.record import LeaseRecord
from credspec.errors import CredspecError
from credspec.kerberos.service_credentials import ServiceTicket
from credspec.metrics_text import Histogram
from credspec.service.events import Event

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceDecision:
    """What was asked for: an account's ticket of a service, for a lease.

    `account` is ``NAME@domain``. `requested` is what the container said, as it said it. `via` is
    how: ``file`` or ``kdc``. `pattern` is what of the policy or of the lease allowed it. `count` is
    how many equal ones the line stands for; with `is_counted` the numbers have them already.
    """

    record: LeaseRecord
    account: str
    service: str
    requested: str
    via: str
    pattern: str | None = None
    count: int = 1
    is_counted: bool = False


class ServiceAudit:
    """Writes decisions down and counts them, all together and of each lease.

    `seconds` has for how long containers with a broker waited for what was granted: from where the
    ticket came, the agent's ``memory`` or the ``domain``.
    """

    def __init__(self, log: AuditLog) -> None:
        self._log = log
        self.counts: Counter[str] = Counter()
        self.denied_by_lease: Counter[str] = Counter()
        self.seconds = Histogram("source", _SECONDS)

    async def granted(self, decision: ServiceDecision, ticket: ServiceTicket) -> None:
        """Write that a ticket is given, before it is.

        Raises:
            AuditUnwritableError: `audit-unwritable`; then it must not be given.
        """
        await self._record(
            Event.SERVICE_TICKET_GRANTED,
            "granted",
            decision,
            realm=ticket.realm,
            end=ticket.end.isoformat(),
            etype=ticket.enctype,
        )
        self.count("granted", decision)

    async def denied(self, decision: ServiceDecision, error: CredspecError) -> None:
        """Write that the policy, or the lease itself, does not allow a service."""
        self.count("denied", decision)
        await self._refused(Event.SERVICE_TICKET_DENIED, "denied", decision, error)

    async def refused(self, decision: ServiceDecision, error: CredspecError) -> None:
        """Write that a request was refused before the policy was asked."""
        self.count("refused", decision)
        await self._refused(Event.SERVICE_TICKET_DENIED, "denied", decision, error)

    async def failed(self, decision: ServiceDecision, error: CredspecError) -> None:
        """Write that no ticket could be had."""
        self.count("failed", decision)
        await self._refused(Event.SERVICE_TICKET_FAILED, "failed", decision, error)

    def count(self, word: str, decision: ServiceDecision) -> None:
        """Count a decision, which may have no line of its own."""
        if decision.is_counted:
            return
        self.counts[word] += decision.count
        if word == "denied":
            self.denied_by_lease[decision.record.lease_id] += decision.count

    def forget(self, lease_id: str) -> None:
        """Forget the numbers of a lease that has ended."""
        self.denied_by_lease.pop(lease_id, None)

    async def _refused(
        self, event: Event, word: str, decision: ServiceDecision, error: CredspecError
    ) -> None:
        codes = [problem.code for problem in error.problems]
        with contextlib.suppress(CredspecError):
            await self._record(event, word, decision, errors=codes)

    async def _record(
        self, event: Event, word: str, decision: ServiceDecision, **more: Any
    ) -> None:
        record = decision.record
        await self._log.record(
            event,
            NOBODY,
            decision=word,
            lease=record.lease_id,
            container=record.container,
            domain=record.domain,
            accounts=[decision.account] if decision.account else [],
            service=decision.service,
            requested=decision.requested,
            via=decision.via,
            **({} if decision.pattern is None else {"pattern": decision.pattern}),
            **more,
            **({} if decision.count == 1 else {"count": decision.count}),
        )
