"""Decisions of the broker in the audit log: the first at once, equal ones joined for a minute."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from credspec.agent.leases.background import BackgroundTasks
from credspec.agent.leases.record import LeaseRecord
from credspec.agent.leases.service_audit import ServiceAudit, ServiceDecision
from credspec.agent.report_limit import ReportLimit
from credspec.errors import CredspecError, NotPermittedError
from credspec.kerberos.kdc.refusals import (
    AskedService,
    RefusedRequestError,
)
from credspec.kerberos.service_credentials import ServiceTicket
from credspec.rate_limit import Suppressed
from credspec.service.events import Event, emit

_SECONDS: Final = 60.0
# Of a lease, in a minute: names are the container's to invent.
_MOST_LINES: Final = 200
_MOST_NAME: Final = 255
_EVENTS: Final = 5

_Key = tuple[str, str, str, str]


@dataclass(slots=True)
class _Joined:
    write: Callable[[ServiceDecision], Any]
    decision: ServiceDecision
    count: int = 0
    is_written: bool = False
    settled: asyncio.Event = field(default_factory=asyncio.Event)


class Decisions:
    """Writes what the broker decides, and emits an event for what it denies."""

    def __init__(self, audit: ServiceAudit, background: BackgroundTasks) -> None:
        self._audit = audit
        self._background = background
        self._joined: dict[_Key, _Joined] = {}
        self._lines: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None
        self._denials: ReportLimit[str] = ReportLimit(_summary, most=_EVENTS)

    async def granted(self, decision: ServiceDecision, ticket: ServiceTicket) -> None:
        """Write that a ticket is given, before it is.

        Raises:
            AuditUnwritableError: `audit-unwritable`; then it must not be given.
        """

        async def write(each: ServiceDecision) -> None:
            await self._audit.granted(each, ticket)

        await self._once("granted", decision, write)

    async def denied(self, decision: ServiceDecision, reason: str) -> None:
        """Write that a service is not allowed: in a container that worked, a sign of intrusion."""
        record = decision.record
        service = decision.requested[:_MOST_NAME]
        self._denials.flush()
        if self._denials.allows(record.lease_id):
            emit(
                Event.SERVICE_TICKET_DENIED,
                lease=record.lease_id,
                container=record.container,
                service=service,
                error=reason,
            )
        error = NotPermittedError.of(
            "broker-service",
            reason,
            where=service,
            remedy="if the container needs it, add it to credspec.dev/services and to "
            "[policy.services]; if not, look whether the container was taken over",
        )

        async def write(each: ServiceDecision) -> None:
            await self._audit.denied(each, error)

        await self._once("denied", decision, write)

    async def failed(self, decision: ServiceDecision, error: CredspecError) -> None:
        """Write that a service is allowed, and no ticket of it can be had."""
        found = error.detached()

        async def write(each: ServiceDecision) -> None:
            await self._audit.failed(each, found)

        await self._once("failed", decision, write)

    async def unreadable(self, record: LeaseRecord, refused: RefusedRequestError) -> None:
        """Write that a request was refused before the policy was asked."""
        service: AskedService = refused.service
        decision = ServiceDecision(
            record=record,
            account="",
            service=service.spn,
            requested=str(service),
            via="kdc",
        )
        error = NotPermittedError.of(
            "broker-request",
            refused.reason,
            where=str(service),
            remedy="look at the program that asks: plain clients of Kerberos ask for nothing else",
        )

        async def write(each: ServiceDecision) -> None:
            await self._audit.refused(each, error)

        await self._once("refused", decision, write, refused.reason)

    def took(self, source: str, seconds: float) -> None:
        """Count for how long a client waited for what was granted, see `ServiceAudit`."""
        self._audit.seconds.observe(source, seconds)

    def denials(self, lease_id: str) -> int:
        """Return how many requests of a lease were for services that it may not have."""
        return self._audit.denied_by_lease[lease_id]

    async def _once(
        self,
        word: str,
        decision: ServiceDecision,
        write: Callable[[ServiceDecision], Any],
        reason: str = "",
    ) -> None:
        """Write a decision if none like it was written in this minute, else count it.

        Equal ones that come while the first is written wait for it.
        """
        lease = decision.record.lease_id
        key = (lease, word + reason, decision.account, decision.requested.lower())
        known = self._joined.get(key)
        if known is None and self._lines[lease] >= _MOST_LINES:
            key = (lease, word + reason, "", "")
            known = self._joined.get(key)
        if known is not None:
            await known.settled.wait()
            if not known.is_written:
                await self._once(word, decision, write, reason)
                return
            known.count += 1
            self._audit.count(word, decision)
            return
        joined = self._joined[key] = _Joined(write, decision)
        self._lines[lease] += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SECONDS, self.flush)
        try:
            await write(decision)
            joined.is_written = True
        finally:
            if not joined.is_written:
                self._joined.pop(key, None)
                self._lines[lease] -= 1
            joined.settled.set()

    def flush(self) -> None:
        """Write the counts of equal decisions, and begin another minute."""
        self._timer = None
        joined = self._joined
        self._joined = {key: each for key, each in joined.items() if not each.is_written}
        self._lines = Counter(key[0] for key in self._joined)
        for each in joined.values():
            if each.is_written and each.count:
                self._background.start(_counted(each))


async def _counted(joined: _Joined) -> None:
    try:
        await joined.write(replace(joined.decision, count=joined.count, is_counted=True))
    except CredspecError:
        return  # an event says that the log cannot be written; the next grant is refused


def _summary(suppressed: Suppressed[str]) -> None:
    emit(Event.SERVICE_TICKET_DENIED, lease=suppressed.key or "", suppressed=suppressed.count)
