"""Counting the turns of an event loop, for tests of what happens in one of them."""

from __future__ import annotations

import asyncio


class TurnCounter:
    """Counts the turns of the running event loop from now on."""

    def __init__(self) -> None:
        self.number = 0
        self._handle = asyncio.get_running_loop().call_soon(self._count)

    def _count(self) -> None:
        self.number += 1
        self._handle = asyncio.get_running_loop().call_soon(self._count)

    def stop(self) -> None:
        """Count no more."""
        self._handle.cancel()
