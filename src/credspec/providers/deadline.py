"""How long a provider may take for a whole answer, whatever it does meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

_SPARE_SECONDS: Final = 0.5
"""To end what was begun before the caller gives up."""


class Deadline:
    """A moment; `seconds` are what the caller allows, some of which is kept for ending.

    A timeout for each read says nothing of the whole: one byte a second keeps every such timeout.
    """

    def __init__(self, seconds: float, *, now: Callable[[], float] = time.monotonic) -> None:
        self.seconds: Final = max(seconds - _SPARE_SECONDS, seconds / 2)
        self._now = now
        self._end = now() + self.seconds

    def left(self) -> float:
        """Return the seconds that are left, more than 0.

        Raises:
            TimeoutError: none is left.
        """
        left = self._end - self._now()
        if left <= 0:
            raise TimeoutError
        return left
