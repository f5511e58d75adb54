"""Tickets of identities, acquired from their domains: when callers wait, and when it is time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from credspec.agent.identities.identity import Identity, IdentityName
from credspec.agent.identities.open_domain import OpenDomain
from credspec.agent.identities.refresh_schedule import Spread
from credspec.agent.identities.table import IdentityTable
from credspec.errors import (
    CredspecError,
    NotFoundError,
    NotPermittedError,
    UnreachableError,
    internal_error,
)
from credspec.service.events import Event, emit
from credspec.session.domain_session import Acquisition

# The time of day is looked at again this often, whatever is planned.
_LONGEST_SLEEP_SECONDS: Final = 60.0
# After the next password is there, and before it is in force (five-minute rule).
_KEYTAB_SECONDS: Final = (10.0, 200.0)


class Acquirer:
    """Acquires identities and keeps them fresh; `renewed` gives a new ticket to the leases."""

    def __init__(
        self,
        table: IdentityTable,
        renewed: Callable[[Identity], Awaitable[None]],
        *,
        now: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]],
        spread: Spread,
    ) -> None:
        self._table = table
        self._renewed = renewed
        self._now = now
        self._sleep = sleep
        self._spread = spread
        self.acquisitions = 0
        self.failures = 0

    async def acquire_wanted(self, domain: OpenDomain, name: IdentityName) -> None:
        """Acquire an identity that somebody waits for.

        Raises:
            CredspecError: of the step that failed; what was held stays.
        """
        acquired, addresses = await self._acquire(domain, name)
        identity = self._table.held.get(name)
        if identity is None:
            identity = Identity(name, acquired.ticket.start, acquired.ticket.end)
            self._table.held[name] = identity
            identity.take(acquired, addresses)
            domain.schedule.reached(self._now())
            domain.schedule.add(name, start=identity.start, end=identity.end, now=self._now())
            self.make_keytab_in_time(domain, identity)
        else:
            await self._replace(domain, identity, acquired, addresses)
        domain.changed.set()

    async def acquire_again(self, domain: OpenDomain, identity: Identity) -> None:
        """Acquire a held identity now, and give its ticket to its leases.

        Raises:
            CredspecError: of the step that failed; what was held stays.
        """
        acquired, addresses = await self._acquire(domain, identity.name)
        if self._table.held.get(identity.name) is identity:
            await self._replace(domain, identity, acquired, addresses)
            domain.changed.set()

    async def keep_fresh(self, domain: OpenDomain) -> None:
        """Acquire a domain's identities again in their time, until cancelled."""
        while True:
            try:
                seconds = self._start_due(domain)
            except Exception as error:  # noqa: BLE001 - its identities must be refreshed all the same
                emit(Event.INTERNAL_ERROR, domain=domain.session.domain, error=type(error).__name__)
                seconds = _LONGEST_SLEEP_SECONDS
            await self._first_of(domain.changed, seconds)

    def make_keytab_in_time(self, domain: OpenDomain, identity: Identity) -> None:
        """Plan the next keytab of an identity that has one."""
        if identity.keytab_due is not None:
            delay = timedelta(seconds=self._spread(*_KEYTAB_SECONDS))
            domain.schedule.hasten(identity.name, identity.keytab_due + delay)

    async def _replace(
        self,
        domain: OpenDomain,
        identity: Identity,
        acquired: Acquisition,
        addresses: tuple[str, ...],
    ) -> None:
        identity.take(acquired, addresses)
        domain.schedule.succeeded(
            identity.name, start=identity.start, end=identity.end, now=self._now()
        )
        self.make_keytab_in_time(domain, identity)
        await self._renewed(identity)

    async def _acquire(
        self, domain: OpenDomain, name: IdentityName
    ) -> tuple[Acquisition, tuple[str, ...]]:
        """Acquire and tell the schedule of a failure."""
        try:
            acquire = domain.session.acquire
            if name in self._table.keytab_holders:
                acquire = domain.session.acquire_with_keytab
            acquired = await domain.run(lambda: acquire(name.account))
        except CredspecError as error:
            self._failed(domain, name, error)
            raise
        self.acquisitions += 1
        domain.answers += 1
        domain.controllers_checked_at = asyncio.get_running_loop().time()
        since, domain.unreached_since = domain.outage_since, None
        if since is not None:
            emit(Event.DOMAIN_REACHED, domain=name.domain, since=since.isoformat())
        domain.last_error = None
        addresses = tuple(a for dc in domain.session.controllers for a in dc.addresses)
        emit(Event.TICKET_ACQUIRED, identity=str(name), end=acquired.ticket.end.isoformat())
        return acquired, addresses

    def _failed(self, domain: OpenDomain, name: IdentityName, error: CredspecError) -> None:
        self.failures += 1
        detached = error.detached()
        domain.last_error = detached
        held = self._table.held.get(name)
        if held is not None:
            held.last_error = detached
            if isinstance(error, (NotPermittedError, NotFoundError)):
                held.refusal = detached
        unreachable = isinstance(error, UnreachableError)
        was_reached = domain.schedule.outage_since is None
        domain.schedule.failed(name, self._now(), unreachable=unreachable)
        if unreachable and was_reached:
            emit(Event.DOMAIN_UNREACHABLE, domain=name.domain, error=str(error))

    def _start_due(self, domain: OpenDomain) -> float:
        """Start what is due now; return in how many seconds to look again."""
        for name in domain.schedule.due(self._now()):
            task = asyncio.create_task(self._refresh(domain, name))
            domain.refreshing[name] = task
            task.add_done_callback(partial(domain.refreshed, name))
        domain.changed.clear()
        when = domain.schedule.next_time()
        if when is None:
            return _LONGEST_SLEEP_SECONDS
        return min(max(0.0, (when - self._now()).total_seconds()), _LONGEST_SLEEP_SECONDS)

    async def _first_of(self, changed: asyncio.Event, seconds: float) -> None:
        waits = [
            asyncio.ensure_future(changed.wait()),
            asyncio.ensure_future(self._sleep(seconds)),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _refresh(self, domain: OpenDomain, name: IdentityName) -> None:
        """Acquire an identity again whose time has come, and give its ticket to its leases."""
        identity = self._table.held.get(name)
        if identity is None:
            return  # dropped meanwhile, from the schedule too
        wanted = self._table.acquiring.get(name)
        if wanted is not None:
            # Somebody waits for it already, and its outcome reaches the schedule.
            await asyncio.wait([wanted])
            return
        try:
            acquired, addresses = await self._acquire(domain, name)
            await self._replace(domain, identity, acquired, addresses)
        except CredspecError as error:
            emit(Event.REFRESH_FAILED, identity=str(name), error=str(error))
        except Exception as error:  # noqa: BLE001 - nobody waits for it; it is tried again
            identity.last_error = internal_error(error, f"identity {name}")
            emit(Event.REFRESH_FAILED, identity=str(name), error=str(identity.last_error))
            domain.schedule.failed(name, self._now(), unreachable=False)
        finally:
            domain.changed.set()
