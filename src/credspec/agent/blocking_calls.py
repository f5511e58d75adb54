"""Calls that may block for ever, such as those on file systems of users, off the event loop.

Each key, such as a user's id, has one thread of its own, in which its calls run one after another
in the order they came: so whatever one user's file system does, only that user's calls wait, and a
file that is written and then removed stays removed. A call has a deadline. One that has begun by
then cannot be stopped and ends whenever it ends; one that has not is dropped.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from credspec.errors import CredspecError

_IDLE_SECONDS: Final = 10.0
_MOST_WAITING: Final = 2048

K = TypeVar("K", bound=Hashable)
_T = TypeVar("_T")


class CallTimeoutError(CredspecError):
    """A call did not end in time: `call-timeout`."""


@dataclass(slots=True, eq=False)
class _Call:
    run: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    is_dropped: bool = False

    def finish(self) -> None:
        """Run it and hand the outcome to the event loop, unless that has closed."""
        found: Any = None
        error: BaseException | None = None
        try:
            found = self.run()
        except BaseException as caught:  # noqa: BLE001 - whatever it is, the caller gets it
            error = caught
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(_settle, self.future, found, error)
        # An error's traceback holds this frame: nothing may stay in it.
        found = error = None
        del self


@dataclass(slots=True, eq=False)
class _Worker:
    calls: deque[_Call] = field(default_factory=deque)
    changed: threading.Condition = field(default_factory=threading.Condition)
    is_running: bool = False

    def add(self, call: _Call, name: str) -> None:
        with self.changed:
            self.calls.append(call)
            if self.is_running:
                self.changed.notify()
                return
            # A daemon: at its end the process waits for nobody who is stuck.
            thread = threading.Thread(target=self._serve, name=name, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                self.calls.remove(call)
                raise
            self.is_running = True

    def _serve(self) -> None:
        while True:
            with self.changed:
                if not self.calls and not self.changed.wait_for(lambda: self.calls, _IDLE_SECONDS):
                    self.is_running = False
                    return
                call = self.calls.popleft()
            if not call.is_dropped:
                call.finish()
            del call  # and with it what it holds, such as tickets


class BlockingCalls(Generic[K]):
    """Runs calls in a thread for each key; at most `most_waiting` of a key wait."""

    def __init__(self, *, most_waiting: int = _MOST_WAITING) -> None:
        self._most_waiting = most_waiting
        self._workers: dict[K, _Worker] = {}

    def submit(self, key: K, call: Callable[[], _T]) -> asyncio.Future[_T]:
        """Run a call in its turn, whether or not anybody waits for it.

        Raises:
            CredspecError: `calls-waiting`.
        """
        return self._submitted(key, call).future

    async def run(self, key: K, call: Callable[[], _T], seconds: float, where: str) -> _T:
        """Return what a call returns, or raise what it raises.

        Raises:
            CredspecError: `call-timeout` after `seconds`, `calls-waiting`; `where` says what does
                not answer.
        """
        submitted = self._submitted(key, call, where)
        found: _T
        try:
            async with asyncio.timeout(seconds):
                found = await submitted.future
        except TimeoutError:
            if submitted.future.done() and not submitted.future.cancelled():
                raise  # the call's own
            raise CallTimeoutError.of(
                "call-timeout",
                f"no answer within {seconds:.0f} s",
                where=where,
                remedy="look at what it is on: a network or user's file system may have stopped",
            ) from None
        finally:
            submitted.is_dropped = not submitted.future.done() or submitted.future.cancelled()
            del submitted  # an error's traceback holds this frame, and the future the error
        return found

    def _submitted(self, key: K, call: Callable[[], Any], where: str = "") -> _Call:
        worker = self._workers.setdefault(key, _Worker())
        if len(worker.calls) >= self._most_waiting:
            raise _too_many(where, f"{self._most_waiting} calls wait already")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        future.add_done_callback(_looked_at)
        submitted = _Call(call, loop, future)
        try:
            worker.add(submitted, f"calls-{key}")
        except RuntimeError as error:
            raise _too_many(where, str(error)) from None
        return submitted


def _settle(future: asyncio.Future[Any], found: object, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(found)
    elif isinstance(error, StopIteration | asyncio.CancelledError | SystemExit):
        future.set_exception(RuntimeError(type(error).__name__))
    else:
        future.set_exception(error)


def _looked_at(future: asyncio.Future[Any]) -> None:
    # Nobody may be waiting any more.
    if not future.cancelled():
        future.exception()


def _too_many(where: str, found: str) -> CredspecError:
    return CredspecError.of(
        "calls-waiting",
        found,
        where=where,
        remedy="look at what they are on: a network or user's file system may have stopped",
    )
