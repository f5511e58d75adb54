"""When leases with tickets of services are given new ones."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from datetime import datetime, timedelta
from typing import Any, Final

from credspec.agent.identities.refresh_schedule import Spread, retry_delay
from credspec.agent.leases.background import BackgroundTasks
from credspec.agent.leases.service_content import HeldTicket

# Of a ticket's life, as with TGTs.
_SHARES: Final = (0.5, 0.6)
_SOONEST_SHARE: Final = 0.02
_SOONEST: Final = timedelta(seconds=1)
_LONGEST_RETRY: Final = timedelta(minutes=5)
# The time of day is looked at again this often, whatever is planned.
_LONGEST_SLEEP_SECONDS: Final = 30.0


class ServiceRefreshes:
    """Calls `refresh` with a lease's id when its time has come; one at a time for each lease.

    Clock, sleep and chance can be replaced.
    """

    def __init__(
        self,
        refresh: Callable[[str], Coroutine[Any, Any, None]],
        background: BackgroundTasks,
        *,
        now: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]],
        spread: Spread,
    ) -> None:
        self._refresh = refresh
        self._background = background
        self._now = now
        self._sleep = sleep
        self._spread = spread
        self._due: dict[str, datetime] = {}
        self._changed = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    def plan(self, lease_id: str, tickets: Iterable[HeldTicket], failures: int) -> None:
        """Plan a lease's next refresh by its tickets, and by how often one failed in a row."""
        now = self._now()
        times = [self._time(ticket, now) for ticket in tickets]
        if failures or not times:
            times.append(now + retry_delay(max(failures, 1), self._spread, _LONGEST_RETRY))
        self._due[lease_id] = min(times)
        self._wake()

    def hasten(self, lease_id: str) -> None:
        """Refresh a lease now."""
        self._due[lease_id] = self._now()
        self._wake()

    def hasten_all(self) -> None:
        """Refresh all leases that are planned now."""
        self._due = dict.fromkeys(self._due, self._now())
        if self._due:
            self._wake()

    def end(self, lease_id: str) -> None:
        """Refresh a lease no more; one that is not planned is fine."""
        self._due.pop(lease_id, None)

    def planned(self, lease_id: str) -> datetime | None:
        """Return when a lease is refreshed next, None if that is not planned."""
        return self._due.get(lease_id)

    def _time(self, ticket: HeldTicket, now: datetime) -> datetime:
        life = ticket.end - (ticket.start or now)
        # Not at once, whatever the clocks say: it would not end.
        soonest = now + max(life * _SOONEST_SHARE, _SOONEST)
        planned = (ticket.start or now) + life * self._spread(*_SHARES)
        return max(planned, soonest)

    def _wake(self) -> None:
        self._changed.set()
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def _keep(self) -> None:
        while self._due:
            now = self._now()
            for lease_id in [each for each, due in self._due.items() if due <= now]:
                del self._due[lease_id]
                self._background.start(self._refresh(lease_id))
            self._changed.clear()
            if self._due:
                seconds = (min(self._due.values()) - now).total_seconds()
                await self._first_of(min(max(seconds, 0.0), _LONGEST_SLEEP_SECONDS))

    async def _first_of(self, seconds: float) -> None:
        waits = [
            asyncio.ensure_future(self._changed.wait()),
            asyncio.ensure_future(self._sleep(seconds)),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
