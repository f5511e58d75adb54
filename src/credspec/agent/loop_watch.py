"""How long the event loop is held between two looks at its sockets and timers.

While it is held, nobody is answered. `WatchedSelector` measures it where every turn of the loop
passes; so it costs two readings of clocks a turn, and misses nothing.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from typing import Any


class WatchedSelector(selectors.DefaultSelector):
    """A selector that knows the longest time, in seconds, between two calls of `select`.

    `longest` is by the clock on the wall, which on a busy host counts the work of others;
    `longest_processor` is what this thread used of the processor. Both are since `reset`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._wall: float | None = None
        self._processor = 0.0
        self.longest = 0.0
        self.longest_processor = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        """Wait as the selector does, and measure how long it was not called."""
        if self._wall is not None:
            self.longest = max(self.longest, time.monotonic() - self._wall)
            used = time.thread_time() - self._processor
            self.longest_processor = max(self.longest_processor, used)
        ready = super().select(timeout)
        self._wall = time.monotonic()
        self._processor = time.thread_time()
        return ready

    def reset(self) -> None:
        """Forget what was measured, and what the present turn has taken so far."""
        self._wall = None
        self.longest = self.longest_processor = 0.0


selector: WatchedSelector | None = None
"""That of the agent's event loop, None where the loop was made by others, such as tests."""


def watched_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop whose turns are measured by `selector`."""
    global selector  # noqa: PLW0603 - a process has one agent
    selector = WatchedSelector()
    return asyncio.SelectorEventLoop(selector)
