"""What the audit log says of leases: every entry about a lease is composed here."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Final

from credspec.agent.audit import NOBODY, AuditLog, Caller, redacted
from credspec.agent.leases.background import BackgroundTasks
from credspec.agent.leases.record import LeaseRecord
from credspec.agent.leases.request import LeaseRequest, MalformedReference, RequestedSpec
from credspec.agent.report_limit import LimitedEvents, ReportLimit
from credspec.errors import CredspecError, InvalidSpecError
from credspec.providers.provider import HostSource
from credspec.rate_limit import Suppressed
from credspec.service.events import Event, emit
from credspec.spec.reference import SpecReference

_AUDITED_DENIALS: Final = 20


class LeaseAudit:
    """Writes decisions down, and emits the events that belong to them.

    A grant is not given if it cannot be written. All else has happened in any case.
    """

    def __init__(self, log: AuditLog, events: LimitedEvents, background: BackgroundTasks) -> None:
        self._log = log
        self._events = events
        self._background = background
        self._denials: ReportLimit[int] = ReportLimit(self._suppressed, most=_AUDITED_DENIALS)

    async def granted(
        self, record: LeaseRecord, request: LeaseRequest, source: HostSource | None
    ) -> None:
        """Write that a lease is granted, before it is.

        Raises:
            CredspecError: `audit-unwritable`.
        """
        await self._log.record(
            Event.LEASE_GRANTED,
            request.caller,
            decision="granted",
            spec=_shown(request.spec),
            **_granted(record, source),
        )

    async def replaced(
        self,
        former: LeaseRecord,
        record: LeaseRecord,
        request: LeaseRequest,
        source: HostSource | None,
    ) -> None:
        """Write that a lease ends and another one of its id is granted, before it is.

        Raises:
            CredspecError: `audit-unwritable`.
        """
        await self.released(former, request.caller)
        await self.granted(record, request, source)

    async def kept(
        self,
        record: LeaseRecord,
        former: LeaseRecord | None,
        caller: Caller,
        source: HostSource | None,
    ) -> None:
        """Write that a lease is as it was before `replaced`; `former` is None if it has ended."""
        await self.released(record, caller)
        if former is None:
            return
        with contextlib.suppress(CredspecError):
            await self._log.record(
                Event.LEASE_GRANTED,
                caller,
                decision="granted",
                **_granted(former, source),
            )

    async def granted_again(self, record: LeaseRecord, caller: Caller, source: HostSource) -> None:
        """Write that a lease may log on with another account, before it does.

        Raises:
            CredspecError: `audit-unwritable`.
        """
        entry = _replacement(record, source)
        await self._log.record(Event.LEASE_GRANTED, caller, decision="granted", **entry)

    async def not_replaced(
        self, record: LeaseRecord, caller: Caller, source: HostSource, error: BaseException
    ) -> None:
        """Write that a lease keeps its former account, after `granted_again`."""
        problems = error.problems if isinstance(error, CredspecError) else ()
        codes = [problem.code for problem in problems] or ["call-ended"]
        entry = _replacement(record, source)
        with contextlib.suppress(CredspecError):
            await self._log.record(
                Event.LEASE_DENIED, caller, decision="denied", **entry, errors=codes
            )

    async def denied(self, request: LeaseRequest, error: CredspecError) -> None:
        """Report that a request is denied; so many of a user's are written down one by one."""
        if isinstance(error, InvalidSpecError):
            self._emit(Event.SPEC_REFUSED, request, error=str(error))
        self._emit(Event.LEASE_DENIED, request, error=str(error))
        self._denials.flush()
        if request.user is not None and not self._denials.allows(request.user):
            return
        with contextlib.suppress(CredspecError):
            await self._log.record(
                Event.LEASE_DENIED,
                request.caller,
                decision="denied",
                lease=request.lease_id,
                container=request.container,
                spec=_shown(request.spec),
                errors=[problem.code for problem in error.problems],
            )

    async def released(self, record: LeaseRecord, caller: Caller) -> None:
        """Write the end of a lease where its grant was written."""
        with contextlib.suppress(CredspecError):
            await self._log.record(
                Event.LEASE_RELEASED,
                caller,
                decision="released",
                lease=record.lease_id,
                container=record.container,
            )

    async def not_adopted(self, records: Sequence[LeaseRecord]) -> None:
        """Write the ends of leases that were not taken over, one by one: they may be many."""
        for record in records:
            await self.released(record, NOBODY)

    async def cut_off(self, record: LeaseRecord, caller: Caller) -> None:
        """Write that root took a lease's tickets away."""
        emit(
            Event.LEASE_CUT_OFF,
            lease=record.lease_id,
            container=record.container,
            uid=caller.uid,
            pid=caller.pid,
        )
        with contextlib.suppress(CredspecError):
            await self._log.record(
                Event.LEASE_CUT_OFF,
                caller,
                decision="revoked",
                **_identity(record),
                errors=["lease-revoked"],
            )

    async def revoked(self, record: LeaseRecord, error: CredspecError) -> None:
        """Write that a lease has ended since it is not allowed any more."""
        emit(
            Event.LEASE_REVOKED,
            lease=record.lease_id,
            container=record.container,
            error=str(error),
        )
        with contextlib.suppress(CredspecError):
            await self._log.record(
                Event.LEASE_REVOKED,
                NOBODY,
                decision="revoked",
                **_identity(record),
                errors=[problem.code for problem in error.problems],
            )

    def _emit(self, event: Event, request: LeaseRequest, **fields: str) -> None:
        if request.user is None:
            emit(event, container=request.container, **fields)
        else:
            self._events.emit(event, request.user, container=request.container, **fields)

    def _suppressed(self, suppressed: Suppressed[int]) -> None:
        """Write down how many denials of a user were not written down one by one."""
        uid = NOBODY.uid if suppressed.key is None else suppressed.key
        self._background.start(
            self._log.record(
                Event.LEASE_DENIED,
                Caller(uid, NOBODY.pid),
                decision="denied",
                suppressed=suppressed.count,
            )
        )


def _identity(record: LeaseRecord) -> dict[str, Any]:
    return {
        "lease": record.lease_id,
        "container": record.container,
        "domain": record.domain,
        "accounts": list(record.accounts),
    }


def _replacement(record: LeaseRecord, source: HostSource) -> dict[str, Any]:
    return {**_identity(record), "host_account": str(source)}


def _granted(record: LeaseRecord, source: HostSource | None) -> dict[str, Any]:
    entry = _identity(record)
    if record.keytab:
        entry["keytab"] = True
    if not record.has_tgt:
        entry.update(tickets=record.tickets, services=list(record.services))
    if source is not None:
        entry["host_account"] = str(source)
    return entry


def _shown(spec: RequestedSpec) -> str:
    if isinstance(spec, SpecReference):
        return redacted(str(spec))
    if isinstance(spec, MalformedReference):
        return redacted(spec.text)
    return redacted(f"raw://{spec.to_text(compact=True)}")
