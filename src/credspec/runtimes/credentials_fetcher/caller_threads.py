"""Threads for what calls must wait for, such as AWS: one user's waiting takes none of another's.

A call that is given up at its deadline keeps its thread until it ends, and counts for that long.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, TypeVar, cast

from credspec.errors import CredspecError, UnreachableError, forget_frames

_T = TypeVar("_T")
_ROOT: Final = 0


class CallerThreads:
    """At most `each` threads for a user and `most` for all of them; root has `most` of its own.

    To be used only in the running event loop.
    """

    def __init__(self, most: int = 16, each: int = 4) -> None:
        self._each = each
        self._pools = {
            is_root: ThreadPoolExecutor(most, thread_name_prefix="fetcher")
            for is_root in (True, False)
        }
        self._busy: Counter[int] = Counter()
        self._waiting: defaultdict[int, deque[asyncio.Future[None]]] = defaultdict(deque)

    async def run(self, uid: int, call: Callable[[], _T], seconds: float) -> _T:
        """Return what a call returns, or raise what it raises.

        Raises:
            UnreachableError: `fetch-timeout`, be it that no thread was free for so long.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._turn(uid)
                found = await self._submitted(uid, call)
        except TimeoutError:
            raise UnreachableError.of(
                "fetch-timeout", f"no answer within {seconds:.0f} s", where="request"
            ) from None
        if isinstance(found, BaseException):
            try:
                raise found
            finally:
                del found  # its traceback holds this frame
        return cast("_T", found)

    async def _turn(self, uid: int) -> None:
        """Wait until a user has a thread to spare, and take it."""
        if uid != _ROOT and self._busy[uid] >= self._each:
            turn = asyncio.get_running_loop().create_future()
            self._waiting[uid].append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._release(uid)  # it was given just before
                raise
        else:
            self._busy[uid] += 1

    def _submitted(self, uid: int, call: Callable[[], Any]) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Any] = loop.create_future()

        def work() -> None:
            found: Any
            try:
                found = call()
            except BaseException as error:  # noqa: BLE001 - whatever it is, the caller gets it
                found = error.detached() if isinstance(error, CredspecError) else error
                # Its frames may hold secrets.
                forget_frames(error)
            with suppress(RuntimeError):  # the event loop has closed
                loop.call_soon_threadsafe(self._settle, uid, outcome, found)
            del found  # an error's traceback holds this frame

        self._pools[uid == _ROOT].submit(work)
        return outcome

    def _settle(self, uid: int, outcome: asyncio.Future[Any], found: object) -> None:
        self._release(uid)
        if not outcome.done():
            outcome.set_result(found)

    def _release(self, uid: int) -> None:
        waiting = self._waiting[uid]
        while waiting:
            turn = waiting.popleft()
            if not turn.done():
                # A waiting caller has it now, so it stays counted.
                turn.set_result(None)
                return
        del self._waiting[uid]
        self._busy[uid] -= 1
        if not self._busy[uid]:
            del self._busy[uid]
