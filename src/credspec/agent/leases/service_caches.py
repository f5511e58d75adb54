"""Leases that have tickets of named services, and no TGT: given, kept fresh, shown."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from credspec.agent.audit import AuditUnwritableError
from credspec.agent.identities.identity import IdentityName
from credspec.agent.identities.refresh_schedule import Spread
from credspec.agent.identities.service_tickets import ServiceTickets
from credspec.agent.leases.background import BackgroundTasks
from credspec.agent.leases.content import file_names
from credspec.agent.leases.files import LeaseFiles
from credspec.agent.leases.journal import Journal
from credspec.agent.leases.record import LeaseRecord
from credspec.agent.leases.service_audit import ServiceAudit, ServiceDecision
from credspec.agent.leases.service_content import (
    HeldTicket,
    ServiceState,
    held_in_files,
    service_files,
)
from credspec.agent.leases.service_owners import ServiceOwners
from credspec.agent.leases.service_refreshes import ServiceRefreshes
from credspec.agent.leases.table import LeaseTable
from credspec.config.policy import PolicyInForce
from credspec.errors import CredspecError, NotFoundError, UnreachableError, internal_error, joined
from credspec.kerberos.service_names import ServiceName
from credspec.service.events import Event, emit


class ServiceCaches:
    """Writes caches of services' tickets into leases' homes, and replaces them in time.

    `revoke_if_refused` ends a lease that the policy does not allow any more, and returns whether it
    has ended.
    """

    def __init__(
        self,
        tickets: ServiceTickets,
        table: LeaseTable,
        journal: Journal,
        files: LeaseFiles,
        *,
        audit: ServiceAudit,
        policy: PolicyInForce,
        revoke_if_refused: Callable[[LeaseRecord], Awaitable[bool]],
        owners: ServiceOwners,
        background: BackgroundTasks,
        now: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]],
        spread: Spread,
    ) -> None:
        self._tickets = tickets
        self._table = table
        self._journal = journal
        self._files = files
        self._audit = audit
        self._policy = policy
        self._revoke_if_refused = revoke_if_refused
        self._owners = owners
        self._background = background
        self._now = now
        self._states: dict[str, tuple[ServiceState, ...]] = {}
        self._failures: dict[str, int] = {}
        self._refreshes = ServiceRefreshes(
            self._refresh, background, now=now, sleep=sleep, spread=spread
        )

    async def give(self, record: LeaseRecord) -> LeaseRecord:
        """Give a new lease the tickets of all its services, or none; journal until when.

        While the domain does not answer, those that are held for other leases will do.

        Raises:
            NotFoundError: `lease-not-found`: it has ended meanwhile.
            CredspecError: one problem for each service that failed; as `Home.write`,
                `LeaseFiles.run` and `Journal.write`.
        """
        states = await self._obtained(record, is_new=True)
        failures = [s.error for s in states if s.ticket is None and s.error is not None]
        if failures:
            raise joined(failures)
        given = await self._put(record, states)
        for state in states:
            self._background.start(self._owners.look(given, state.identity, state.service))
        return given

    def adopt(self, record: LeaseRecord, *, in_place: bool) -> None:
        """Take a lease of an earlier run over; its container keeps what it has until its turn."""
        start, end = record.ticket_start, record.ticket_end
        if in_place and start is not None and end is not None:
            self._refreshes.plan(record.lease_id, [HeldTicket("", start, end, ())], 0)
        else:
            self._refreshes.hasten(record.lease_id)

    def end(self, lease_id: str) -> None:
        """Refresh a lease no more, and forget its tickets; one of another kind is fine."""
        self._refreshes.end(lease_id)
        self._states.pop(lease_id, None)
        self._failures.pop(lease_id, None)
        self._audit.forget(lease_id)

    def clock_changed(self) -> None:
        """Replace in all leases what may not be used by the clock as it is now."""
        self._refreshes.hasten_all()

    def status(self, record: LeaseRecord) -> dict[str, Any]:
        """Return what is shown of a lease beyond its record; nothing of one with a TGT."""
        if record.has_tgt:
            return {}
        planned = self._refreshes.planned(record.lease_id)
        return {
            "service_tickets": [s.to_json() for s in self._states.get(record.lease_id, ())],
            "refresh_at": None if planned is None else planned.isoformat(),
            "denied": self._audit.denied_by_lease[record.lease_id],
        }

    async def _refresh(self, lease_id: str) -> None:
        record = self._table.records.get(lease_id)
        if record is None or record.has_tgt or not record.ready:
            return
        try:
            if await self._revoke_if_refused(record):
                return
            await self._renew(record)
        except Exception as error:  # noqa: BLE001 - it is tried again, and others have theirs
            if not self._table.is_current(record):
                return
            wrong = error if isinstance(error, CredspecError) else internal_error(error, lease_id)
            emit(
                Event.LEASE_NOT_RENEWED,
                lease=lease_id,
                container=record.container,
                error=str(wrong),
            )
            self._plan(lease_id, self._states.get(lease_id, ()), has_failed=True)

    async def _renew(self, record: LeaseRecord) -> None:
        """Replace a lease's cache by what could be had; what failed keeps its old ticket."""
        lease_id = record.lease_id
        states = await self._obtained(record)
        former = {(s.identity, s.service): s for s in self._states.get(lease_id, ())}
        failed = [state for state in states if state.error is not None]
        held = {key: state.ticket for key, state in former.items() if state.ticket is not None}
        if failed and not former:
            # After a restart only the file has what there was.
            home = self._files.homes.of(record)
            files = await self._files.run(home, partial(home.read, file_names(record)))
            held |= held_in_files(record, failed, files, self._now())
        for state in failed:
            known = former.get((state.identity, state.service))
            if known is None or known.error is None:
                emit(
                    Event.SERVICE_TICKET_FAILED,
                    lease=lease_id,
                    container=record.container,
                    service=state.service.text,
                    error=str(state.error),
                )
        now = self._now()
        whole = tuple(s.kept(held.get((s.identity, s.service)), now) for s in states)
        if len(failed) < len(states):
            await self._put(record, whole)
        elif lease_id in self._table.records:
            self._states[lease_id] = whole
            self._plan(lease_id, whole, has_failed=True)

    async def _put(self, record: LeaseRecord, states: tuple[ServiceState, ...]) -> LeaseRecord:
        home = self._files.homes.of(record)
        files = service_files(record, states, home.inside)
        if not self._table.is_current(record):
            raise NotFoundError.of("lease-not-found", "it has ended", where=record.lease_id)
        write = partial(home.write, files, uid=record.uid, gid=record.gid, mode=record.mode)
        await self._files.run(home, write)
        now = self._now()
        tickets = [state.ticket for state in states if state.ticket is not None]
        given = replace(
            record,
            ready=True,
            ticket_start=min(ticket.start or now for ticket in tickets),
            ticket_end=min(ticket.end for ticket in tickets),
        )
        if self._table.is_current(record):
            self._journal.write(given)
            self._table.records[record.lease_id] = given
            self._states[record.lease_id] = states
            failed = any(state.error is not None for state in states)
            self._plan(record.lease_id, states, has_failed=failed)
        return given

    def _plan(self, lease_id: str, states: tuple[ServiceState, ...], *, has_failed: bool) -> None:
        failures = self._failures.get(lease_id, 0) + 1 if has_failed else 0
        self._failures[lease_id] = failures
        fresh = [s.ticket for s in states if s.ticket is not None and s.error is None]
        self._refreshes.plan(lease_id, fresh, failures)

    async def _obtained(
        self, record: LeaseRecord, *, is_new: bool = False
    ) -> tuple[ServiceState, ...]:
        wanted = [
            (name, service)
            for name in self._table.names(record)
            for service in record.service_names
        ]
        return tuple(
            await asyncio.gather(
                *(self._one(record, name, service, is_new=is_new) for name, service in wanted)
            )
        )

    async def _one(
        self, record: LeaseRecord, name: IdentityName, service: ServiceName, *, is_new: bool
    ) -> ServiceState:
        decision = ServiceDecision(
            record=record,
            account=f"{name.account}@{name.domain}",
            service=service.spn,
            requested=service.text,
            via="file",
            pattern=service.text,
        )
        life = self._policy.policy.life_of(service.service_class)
        try:
            ticket = await self._tickets.get(name, record.lease_id, service, life)
            await self._audit.granted(decision, ticket)
        except CredspecError as error:
            held = self._tickets.held(name, service, life)
            if is_new and held is not None and isinstance(error, UnreachableError):
                await self._audit.granted(decision, held)
                return ServiceState(name, service, HeldTicket.of(held), error.detached())
            if not isinstance(error, AuditUnwritableError):
                await self._audit.failed(decision, error)
            return ServiceState(name, service, error=error.detached())
        return ServiceState(name, service, HeldTicket.of(ticket))
