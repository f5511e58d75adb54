"""Notices within seconds that the time of day jumped: the clock was set, or the host slept.

Plans and tickets are times of day, while timers count seconds that the host was awake. The kernel
tells of a clock that was set (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET); a comparison with the
clock that is never set finds all other jumps, also where the kernel does not tell.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

_LOOK_SECONDS: Final = 5.0
_JUMP_SECONDS: Final = 2.0
# More time than this between two looks was not the event loop's; perhaps all clocks were moved.
_UNSEEN_SECONDS: Final = 60.0

_TFD_TIMER_ABSTIME: Final = 1
_TFD_TIMER_CANCEL_ON_SET: Final = 2
# The timer itself is never to go off; 64 bits of nanoseconds end in the year 2262.
_FAR_SECONDS: Final = 8_000_000_000


class Clocks(NamedTuple):
    """What the host's clocks show, in seconds: the time of day, and the time since its start.

    `monotonic` does not count the time that the host slept, `boottime` does.
    """

    wall: float
    monotonic: float
    boottime: float

    @classmethod
    def read(cls) -> Clocks:
        """Read the clocks of this host."""
        return cls(time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME))


class ClockChange(NamedTuple):
    """By how many seconds the time of day jumped, and how many of them the host slept."""

    seconds: float
    slept: float


def change_between(before: Clocks, after: Clocks) -> ClockChange | None:
    """Return what happened to the time of day between two looks, None if it just went on."""
    awake = after.monotonic - before.monotonic
    jumped = after.wall - before.wall - awake
    slept = max(0.0, after.boottime - before.boottime - awake)
    if abs(jumped) < _JUMP_SECONDS and slept < _JUMP_SECONDS:
        if after.wall - before.wall < _UNSEEN_SECONDS:
            return None
        jumped = after.wall - before.wall
    return ClockChange(jumped, slept)


async def watch_clock(
    changed: Callable[[ClockChange], None],
    *,
    read: Callable[[], Clocks] = Clocks.read,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Call `changed` after each jump of the time of day, until cancelled."""
    was_set = asyncio.Event()
    before = read()
    with _told_by_kernel(was_set.set):
        while True:
            await _first_of(was_set.wait(), sleep(_LOOK_SECONDS))
            was_set.clear()
            after = read()
            change = change_between(before, after)
            before = after
            if change is not None:
                changed(change)


async def _first_of(*waited_for: Awaitable[object]) -> None:
    tasks = [asyncio.ensure_future(each) for each in waited_for]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


@contextmanager
def _told_by_kernel(was_set: Callable[[], None]) -> Iterator[None]:
    """Call `was_set` from the event loop when the kernel tells that the clock was set."""
    try:
        timer = ClockSetTimer()
    except (OSError, AttributeError):
        yield  # what is left is to compare
        return
    loop = asyncio.get_running_loop()

    def ready() -> None:
        if timer.take():
            was_set()

    loop.add_reader(timer.fileno(), ready)
    try:
        yield
    finally:
        loop.remove_reader(timer.fileno())
        timer.close()


class _TimeSpec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("it_interval", _TimeSpec), ("it_value", _TimeSpec))


class ClockSetTimer:
    """A timer of the kernel whose descriptor becomes readable when the clock is set.

    Raises:
        OSError: the kernel has no such timers, or this process may not have one.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        flags = os.O_NONBLOCK | os.O_CLOEXEC
        self._fd = self._libc.timerfd_create(time.CLOCK_REALTIME, flags)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        try:
            self._arm()
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor."""
        return int(self._fd)

    def take(self) -> bool:
        """Return whether the clock was set since the last call; for when it is readable."""
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.ECANCELED:
                raise
        # Else it would stay readable.
        self._arm()
        return True

    def close(self) -> None:
        """Give the timer back."""
        os.close(self._fd)

    def _arm(self) -> None:
        when = _TimerSpec(_TimeSpec(0, 0), _TimeSpec(_FAR_SECONDS, 0))
        flags = _TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET
        if self._libc.timerfd_settime(self._fd, flags, ctypes.byref(when), None) != 0:
            number = ctypes.get_errno()
            if number == errno.ECANCELED:
                return  # set in between; it is armed, and the next read tells
            raise OSError(number, "timerfd_settime")
