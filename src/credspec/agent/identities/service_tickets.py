"""Tickets of services for identities, each obtained once for all leases that need it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from credspec.agent.identities.identities import Identities
from credspec.agent.identities.identity import IdentityName
from credspec.errors import CredspecError
from credspec.kerberos.service_credentials import ServiceTicket
from credspec.kerberos.service_names import ServiceName
from credspec.kerberos.ticket_life import CLOCK_SKEW

MOST_HELD: Final = 500
"""Of an account, at once: with a broker, containers choose the services that they ask for."""

_SWEPT_EACH: Final = timedelta(minutes=1)
_Key = tuple[IdentityName, ServiceName, timedelta]
_Held = dict[tuple[ServiceName, timedelta], ServiceTicket]


class ServiceTickets:
    """Holds tickets of services in memory; one is handed out while half of its life is left.

    Of an account it holds `MOST_HELD` at most, those that came last.
    """

    def __init__(
        self, identities: Identities, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._identities = identities
        self._now = now
        self._held: dict[IdentityName, _Held] = {}
        self._swept = now()
        self._asking: dict[_Key, asyncio.Task[ServiceTicket]] = {}

    async def get(
        self, name: IdentityName, holder: str, service: ServiceName, life: timedelta
    ) -> ServiceTicket:
        """Return a ticket of a service for an identity that `holder` holds.

        However many ask at once, a KDC is asked once; what it refuses is not remembered. Nothing is
        held for the holder, which may end meanwhile.

        Raises:
            CredspecError: as `Identities.service_ticket`.
        """
        del holder
        key = (name, service, life)
        fresh = self.fresh(name, service, life)
        if fresh is not None:
            return fresh
        task = self._asking.get(key)
        if task is None:
            task = asyncio.create_task(self._ask(key))
            self._asking[key] = task
            task.add_done_callback(partial(self._asked, key))
        failure: CredspecError
        try:
            # Shielded: one impatient caller must not cancel what the others wait for.
            return replace(await asyncio.shield(task), service=service)
        except CredspecError as error:
            failure = error.detached()
        finally:
            # Its error leads to this frame, which must not lead back to it.
            del task
        try:
            raise failure
        finally:
            del failure

    def fresh(
        self, name: IdentityName, service: ServiceName, life: timedelta
    ) -> ServiceTicket | None:
        """Return what `get` returns without asking anybody, None if a KDC must be asked."""
        held = self._held.get(name, {}).get((service, life))
        if held is None or not _is_fit(held, self._now()):
            return None
        return replace(held, service=service)

    def held(
        self, name: IdentityName, service: ServiceName, life: timedelta
    ) -> ServiceTicket | None:
        """Return what is held and has not ended, for when no KDC answers; None if there is none."""
        found = self._held.get(name, {}).get((service, life))
        return found if found is not None and found.end > self._now() else None

    def _asked(self, key: _Key, task: asyncio.Task[ServiceTicket]) -> None:
        self._asking.pop(key, None)
        if not task.cancelled():
            task.exception()  # all that waited have it

    async def _ask(self, key: _Key) -> ServiceTicket:
        name, service, life = key
        found = await self._identities.service_ticket(name, service, life)
        self._sweep(self._now())
        held = self._held.setdefault(name, {})
        held.pop((service, life), None)
        if len(held) >= MOST_HELD:
            del held[next(iter(held))]
        held[service, life] = found
        return found

    def _sweep(self, now: datetime) -> None:
        """Forget what has ended, once in a while."""
        if abs(now - self._swept) < _SWEPT_EACH:
            return
        self._swept = now
        for name, held in list(self._held.items()):
            living = {each: ticket for each, ticket in held.items() if ticket.end > now}
            if living:
                self._held[name] = living
            else:
                del self._held[name]


def _is_fit(ticket: ServiceTicket, now: datetime) -> bool:
    """Return whether half of a ticket's life is left, and it does not start in the future."""
    is_half_left = ticket.end - now >= (ticket.end - ticket.start) / 2
    return is_half_left and ticket.start - now <= CLOCK_SKEW
