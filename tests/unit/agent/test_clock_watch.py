"""Jumps of the time of day, seen by clocks that a test moves; the kernel's timer is the real one.

No test sets the clock of the machine that it runs on: what the kernel then says is simulated.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.agent import clock_watch
from credspec.agent.clock_watch import (
    ClockChange,
    Clocks,
    ClockSetTimer,
    change_between,
    watch_clock,
)

START = Clocks(1.7e9, 1000.0, 1500.0)
seconds = st.floats(0, 50)
jumps = st.floats(-1e8, 1e8).filter(lambda jump: abs(jump) >= 2.1)


@given(seconds, st.floats(-1.5, 1.5))
def test_time_that_goes_on_is_no_change(passed: float, slewed: float) -> None:
    after = Clocks(START.wall + passed + slewed, START.monotonic + passed, START.boottime + passed)
    assert change_between(START, after) is None


@given(seconds, jumps)
def test_a_clock_that_is_set(passed: float, jump: float) -> None:
    after = Clocks(START.wall + passed + jump, START.monotonic + passed, START.boottime + passed)
    change = change_between(START, after)
    assert change is not None
    assert change.seconds == pytest.approx(jump, abs=0.01)
    assert change.slept == pytest.approx(0, abs=0.01)


@given(seconds, st.floats(2.1, 1e7))
def test_a_host_that_slept(passed: float, slept: float) -> None:
    after = Clocks(
        START.wall + passed + slept, START.monotonic + passed, START.boottime + passed + slept
    )
    change = change_between(START, after)
    assert change is not None
    assert change.seconds == pytest.approx(slept, abs=0.01)
    assert change.slept == pytest.approx(slept, abs=0.01)


@given(st.floats(61, 1e7))
def test_time_that_nobody_saw_pass(passed: float) -> None:
    """A process that was stopped, or whose clocks were all moved alike."""
    after = Clocks(START.wall + passed, START.monotonic + passed, START.boottime + passed)
    change = change_between(START, after)
    assert change is not None
    assert change.seconds == pytest.approx(passed, abs=0.01)


class Bench:
    """Clocks that a test moves, and what the watch said."""

    def __init__(self) -> None:
        self.clocks = START
        self.seen: list[ClockChange] = []
        self.looks = asyncio.Queue[None]()
        self.task = asyncio.create_task(
            watch_clock(self.seen.append, read=lambda: self.clocks, sleep=self.sleep)
        )

    async def sleep(self, _: float) -> None:
        await self.looks.get()

    def pass_time(self, awake: float, *, jump: float = 0.0) -> None:
        self.clocks = Clocks(
            self.clocks.wall + awake + jump,
            self.clocks.monotonic + awake,
            self.clocks.boottime + awake,
        )

    async def look(self) -> None:
        self.looks.put_nowait(None)
        for _ in range(5):
            await asyncio.sleep(0.001)

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_each_jump_is_seen_once_at_the_next_look() -> None:
    bench = Bench()
    await asyncio.sleep(0)
    for jump in (0.0, 39600.0, 0.0, -18000.0, 0.0):
        bench.pass_time(5, jump=jump)
        await bench.look()
    assert [round(change.seconds) for change in bench.seen] == [39600, -18000]
    await bench.end()


async def test_without_the_kernels_word_jumps_are_seen_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> ClockSetTimer:
        raise OSError(errno.ENOSYS, "no such timers")

    monkeypatch.setattr(clock_watch, "ClockSetTimer", none)
    bench = Bench()
    await asyncio.sleep(0)
    bench.pass_time(5, jump=100)
    await bench.look()
    assert len(bench.seen) == 1
    await bench.end()


class SimulatedTimer:
    """A timer whose kernel says that the clock was set when the test wants it."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def fileno(self) -> int:
        return self.reader

    def take(self) -> bool:
        return bool(os.read(self.reader, 1))

    def close(self) -> None:
        os.close(self.reader)
        os.close(self.writer)


async def test_the_kernels_word_is_heard_at_once_simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    timers: list[SimulatedTimer] = []

    def made() -> SimulatedTimer:
        timers.append(SimulatedTimer())
        return timers[-1]

    monkeypatch.setattr(clock_watch, "ClockSetTimer", made)
    bench = Bench()
    while not timers:
        await asyncio.sleep(0)
    bench.pass_time(1, jump=-18000)
    os.write(timers[0].writer, b"x")
    end = asyncio.get_running_loop().time() + 30
    while not bench.seen and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(0.001)
    # Nobody's sleep had to end for it.
    assert [round(change.seconds) for change in bench.seen] == [-18000]
    await bench.end()


def test_the_kernels_timer_says_nothing_while_time_goes_on() -> None:
    timer = ClockSetTimer()
    try:
        poll = select.poll()
        poll.register(timer.fileno(), select.POLLIN)
        assert poll.poll(20) == []
        assert not timer.take()
    finally:
        timer.close()


def reading(outcome: Callable[[], bytes]) -> Callable[[int, int], bytes]:
    return lambda _fd, _size: outcome()


def test_a_cancelled_read_means_that_the_clock_was_set_simulated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timer = ClockSetTimer()
    try:

        def cancelled() -> bytes:
            raise OSError(errno.ECANCELED, "cancelled")

        with monkeypatch.context() as patch:
            patch.setattr(clock_watch.os, "read", reading(cancelled))
            assert timer.take()
        # It was armed again, on the real kernel.
        assert not timer.take()

        def broken() -> bytes:
            raise OSError(errno.EIO, "broken")

        with monkeypatch.context() as patch:
            patch.setattr(clock_watch.os, "read", reading(broken))
            with pytest.raises(OSError, match="broken"):
                timer.take()
    finally:
        timer.close()
