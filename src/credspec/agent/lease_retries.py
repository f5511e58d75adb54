"""Leases that could not be given their new tickets, tried again before the next regular refresh."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from itertools import count
from typing import Final

from credspec.agent.refresh_schedule import Spread, retry_delay

_LONGEST: Final = timedelta(minutes=5)

_spread: Final = random.SystemRandom().uniform


class LeaseRetries:
    """Tries each lease separately, after seconds and then with growing intervals.

    These are five minutes at most. `renew` is awaited with a lease's id, and returns whether there
    is nothing left to try. Sleep and chance can be replaced.
    """

    def __init__(
        self,
        renew: Callable[[str], Awaitable[bool]],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        spread: Spread = _spread,
    ) -> None:
        self._renew = renew
        self._sleep = sleep
        self._spread = spread
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        """Return how many leases are to be tried again."""
        return len(self._tasks)

    def begin(self, lease_id: str) -> None:
        """Try a lease again soon; one that is tried already goes on as it is."""
        if lease_id not in self._tasks:
            self._tasks[lease_id] = asyncio.get_running_loop().create_task(self._run(lease_id))

    def end(self, lease_id: str) -> None:
        """Try a lease no more, which has its tickets or has ended; one not tried is fine."""
        task = self._tasks.pop(lease_id, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    async def _run(self, lease_id: str) -> None:
        try:
            for failures in count(1):
                await self._sleep(retry_delay(failures, self._spread, _LONGEST).total_seconds())
                if await self._renew(lease_id):
                    return
        finally:
            if self._tasks.get(lease_id) is asyncio.current_task():
                del self._tasks[lease_id]
