"""Reports that users can cause as often as they like: a few a minute each, and a count of the rest.

A flood of refused requests must fill neither the log nor the audit log, and must not go unnoticed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from credspec.rate_limit import Clock, K, Suppressed, Throttle
from credspec.service.events import Event, emit

_MOST: Final = 10
_SECONDS: Final = 60.0


class ReportLimit(Throttle[K]):
    """A `Throttle` that calls `summarize` for what it suppressed, at the end of each minute."""

    def __init__(
        self,
        summarize: Callable[[Suppressed[K]], object],
        *,
        most: int = _MOST,
        seconds: float = _SECONDS,
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__(most, seconds, clock=clock)
        self._summarize = summarize
        self._timer: asyncio.TimerHandle | None = None

    def allows(self, key: K) -> bool:
        """Count a report; return whether it is to be made. To be called in the event loop."""
        is_allowed = super().allows(key)
        if not is_allowed and self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self.remaining() or 0.0, self.flush)
        return is_allowed

    def take_suppressed(self) -> list[Suppressed[K]]:
        """Return what was suppressed, as `Throttle.take_suppressed`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return super().take_suppressed()

    def flush(self) -> None:
        """Report what was suppressed until now, if its minute is over."""
        for suppressed in self.take_suppressed():
            self._summarize(suppressed)


class LimitedEvents:
    """Emits events of users, a few of a kind and a user a minute."""

    def __init__(self, *, clock: Clock = time.monotonic) -> None:
        self._limit: ReportLimit[tuple[Event, int]] = ReportLimit(_summary, clock=clock)

    def emit(self, event: Event, uid: int, **fields: Any) -> None:
        """Emit an event that the user `uid` caused, unless there were too many."""
        self._limit.flush()
        if self._limit.allows((event, uid)):
            emit(event, uid=uid, **fields)


def _summary(suppressed: Suppressed[tuple[Event, int]]) -> None:
    event, uid = suppressed.key or (Event.REQUEST_FAILED, None)
    emit(event, uid=uid, suppressed=suppressed.count)
