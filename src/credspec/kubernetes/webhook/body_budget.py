"""How much memory the bodies of requests may take together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from credspec.errors import TooManyRequestsError


class BodyBudget:
    """A number of bytes that requests share; who finds too few waits, but not for long."""

    def __init__(self, most: int, wait_seconds: float) -> None:
        self._left = most
        self._most = most
        self._seconds = wait_seconds
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def taken(self, size: int) -> AsyncIterator[None]:
        """Take a number of bytes, at most all there are, while the block runs.

        Raises:
            TooManyRequestsError: `kubernetes-webhook-busy`.
        """
        size = min(size, self._most)
        async with self._changed:
            try:
                async with asyncio.timeout(self._seconds):
                    await self._changed.wait_for(lambda: self._left >= size)
            except TimeoutError:
                raise TooManyRequestsError.of(
                    "kubernetes-webhook-busy",
                    "other reviews take all the memory for requests",
                    where="webhook",
                    remedy="try again; more replicas take more at a time",
                ) from None
            self._left -= size
        try:
            yield
        finally:
            self._left += size
            async with self._changed:
                self._changed.notify_all()
