"""Python's garbage collection soon after work that leaves circles with secrets in them."""

from __future__ import annotations

import asyncio
import gc
from typing import Final

_SOON_SECONDS: Final = 0.2
_AT_MOST_EVERY_SECONDS: Final = 2.0


class SoonCollected:
    """Collects once for all the work that ends at about the same time."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None
        self._not_before = 0.0

    def collect(self) -> None:
        """Collect soon; to be called in the event loop."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            when = max(loop.time() + _SOON_SECONDS, self._not_before)
            self._timer = loop.call_at(when, self._collect)

    def _collect(self) -> None:
        self._timer = None
        gc.collect()
        self._not_before = asyncio.get_running_loop().time() + _AT_MOST_EVERY_SECONDS
