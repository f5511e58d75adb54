from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable

import pytest

from credspec.agent.doors.credentials_fetcher.caller_threads import CallerThreads
from credspec.errors import CredspecError, UnreachableError, UsageError

SECONDS = 10.0


class Gate:
    """What hangs until it is opened, and counts how many hang."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.waiting = 0
        self._lock = threading.Lock()

    def __call__(self) -> int:
        with self._lock:
            self.waiting += 1
        assert self.opened.wait(30)
        with self._lock:
            self.waiting -= 1
        return 7


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_one_user_hangs_and_the_others_do_not_wait() -> None:
    threads, gate = CallerThreads(most=8, each=2), Gate()
    hanging = [asyncio.create_task(threads.run(1000, gate, SECONDS)) for _ in range(20)]
    await until(lambda: gate.waiting == 2)
    assert await threads.run(1001, lambda: 1, SECONDS) == 1
    assert await threads.run(0, lambda: 2, SECONDS) == 2
    assert gate.waiting == 2
    gate.opened.set()
    assert await asyncio.gather(*hanging) == [7] * 20


async def test_root_has_threads_although_users_have_all_of_theirs() -> None:
    threads, gate = CallerThreads(most=4, each=2), Gate()
    hanging = [asyncio.create_task(threads.run(1000 + n, gate, SECONDS)) for n in range(8)]
    await until(lambda: gate.waiting == 4)
    assert await threads.run(0, lambda: 2, SECONDS) == 2
    gate.opened.set()
    assert await asyncio.gather(*hanging) == [7] * 8


async def test_at_its_deadline_a_call_is_given_up_and_its_thread_counts_until_it_ends() -> None:
    threads, gate = CallerThreads(most=4, each=1), Gate()
    with pytest.raises(UnreachableError, match="fetch-timeout"):
        await threads.run(1000, gate, 0.05)
    with pytest.raises(UnreachableError, match="fetch-timeout"):
        await threads.run(1000, lambda: 1, 0.05)
    gate.opened.set()
    assert await threads.run(1000, lambda: 1, SECONDS) == 1


async def test_waiters_that_go_take_no_turn() -> None:
    threads, gate = CallerThreads(most=4, each=1), Gate()
    running = asyncio.create_task(threads.run(1000, gate, SECONDS))
    await until(lambda: gate.waiting == 1)
    waiting = [asyncio.create_task(threads.run(1000, lambda: 1, SECONDS)) for _ in range(5)]
    await asyncio.sleep(0)
    for task in waiting[:4]:
        task.cancel()
    gate.opened.set()
    # The turn may have been given just as its owner went.
    await running
    waiting[4].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert await threads.run(1000, lambda: 3, SECONDS) == 3


class Secret:
    pass


async def test_what_fails_keeps_nothing_of_what_was_on_the_way() -> None:
    threads = CallerThreads()
    known: list[weakref.ref[Secret]] = []

    def fail_as_told() -> None:
        secret = Secret()
        known.append(weakref.ref(secret))
        raise UsageError.of("x", "y")

    def fail_by_a_defect() -> None:
        secret = Secret()
        known.append(weakref.ref(secret))
        raise ValueError("a defect")

    async def call(fail: Callable[[], None]) -> None:
        own = Secret()
        known.append(weakref.ref(own))
        await threads.run(0, fail, SECONDS)

    gc.disable()
    try:
        with pytest.raises(CredspecError):
            await call(fail_as_told)
        with pytest.raises(ValueError, match="a defect"):
            await call(fail_by_a_defect)
        await until(lambda: all(each() is None for each in known))
        assert len(known) == 4
    finally:
        gc.enable()
