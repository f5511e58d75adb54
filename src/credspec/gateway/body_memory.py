"""How much memory bodies of requests may take at a time, of one user and of all.

Who finds none left waits, and is refused when it takes too long. Root, and the user that the
gateway runs as, has a share of its own.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from credspec.sockets.admission import is_privileged
from credspec.sockets.peers import Peer

MEBIBYTE: Final = 1 << 20


class NoMemoryLeftError(Exception):
    """There is none in time."""


class BodyMemory:
    """`each` bytes for a user and `most` for all of them, and `most` more for root."""

    def __init__(
        self, most: int = 64 * MEBIBYTE, each: int = 32 * MEBIBYTE, *, seconds: float = 10.0
    ) -> None:
        self._most = most
        self._each = each
        self._seconds = seconds
        self._taken: Counter[int | str] = Counter()
        self._changed = asyncio.Event()

    @contextmanager
    def share(self, peer: Peer) -> Iterator[Share]:
        """Return what one request of a peer takes; it is given back at the end of the block."""
        share = Share(self, "root" if is_privileged(peer) else peer.key)
        try:
            yield share
        finally:
            share.give_back()

    @property
    def taken(self) -> int:
        """How many bytes are taken."""
        return self._taken.total()

    def _has(self, key: int | str, count: int) -> bool:
        root = self._taken["root"]
        if key == "root":
            return root + count <= self._most
        own, all_users = self._taken[key], self._taken.total() - root
        return own + count <= self._each and all_users + count <= self._most

    async def take(self, key: int | str, count: int) -> None:
        """Take so many bytes, as soon as they are there.

        Raises:
            NoMemoryLeftError: they are not there in time.
        """
        try:
            async with asyncio.timeout(self._seconds):
                while not self._has(key, count):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise NoMemoryLeftError from None
        self._taken[key] += count

    def give(self, key: int | str, count: int) -> None:
        """Give bytes back."""
        self._taken[key] -= count
        if self._taken[key] <= 0:
            del self._taken[key]
        self._changed.set()


class Share:
    """The bytes of one request."""

    def __init__(self, memory: BodyMemory, key: int | str) -> None:
        self._memory = memory
        self._key = key
        self._bytes = 0

    async def grow_to(self, count: int) -> None:
        """Take bytes until there are at least `count`.

        Raises:
            NoMemoryLeftError: there are not so many in time.
        """
        more = count - self._bytes
        if more > 0:
            await self._memory.take(self._key, more)
            self._bytes += more

    def give_back(self) -> None:
        """Give back all that was taken."""
        self._memory.give(self._key, self._bytes)
        self._bytes = 0
