"""How many requests go on in one turn of the event loop.

Each takes a few milliseconds at most, but those of all connections that are ready at the same
moment would be one turn, in which nobody else is answered.
"""

from __future__ import annotations

import asyncio
from collections import deque


class PerTurnLimit:
    """Lets at most `most` of those who wait go on in one turn of the event loop, in their order."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_idle = True
        self._released = 0  # of the turn before; they go on in this one

    async def wait(self) -> None:
        """Return at once if nobody else waits or has just gone on, or else in a later turn."""
        loop = asyncio.get_running_loop()
        if self._is_idle:
            self._is_idle = False
            loop.call_soon(self._next_turn)
            return
        future = loop.create_future()
        self._waiting.append(future)
        await future

    def _next_turn(self) -> None:
        before, self._released = self._released, 0
        while self._waiting and self._released < self._most:
            future = self._waiting.popleft()
            if not future.done():  # the one who waited may have been cancelled
                future.set_result(None)
                self._released += 1
        if self._released or before:
            asyncio.get_running_loop().call_soon(self._next_turn)
        else:
            self._is_idle = True
