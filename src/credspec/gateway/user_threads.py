"""Threads for what takes long, of which each user of the gateway has one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from credspec.errors import CredspecError, forget_frames
from credspec.gateway.refusal import Refusal
from credspec.service.keyed_lock import KeyedLock
from credspec.sockets.peers import Peer

_T = TypeVar("_T")

_SECONDS: Final = 30.0


class UserThreads:
    """`count` threads; `too_late` is what a caller is refused with that waited too long."""

    def __init__(self, count: int, name: str, too_late: str) -> None:
        self._threads = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._busy: KeyedLock[int] = KeyedLock()
        self._too_late = too_late

    async def run(self, peer: Peer, call: Callable[[], _T]) -> _T:
        """Do a thing in a thread and return what it returns.

        Raises:
            Refusal: it raised a `CredspecError`, or took too long.
        """

        def work() -> _T | CredspecError:
            try:
                return call()
            except CredspecError as error:
                # The frames above hold the body.
                forget_frames(error)
                return error.detached()

        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_SECONDS), self._busy.hold(peer.uid):
                found = await loop.run_in_executor(self._threads, work)
        except TimeoutError:
            text = self._too_late.format(f"{_SECONDS:.0f} s")
            raise Refusal(503, "Service Unavailable", text) from None
        if isinstance(found, CredspecError):
            raise Refusal(400, "Bad Request", str(found))
        return found
