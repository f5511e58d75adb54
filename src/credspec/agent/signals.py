"""Signals that a service gets: two end it, one is a request to look again, no other ends it.

By default nearly every signal ends a process at once, without clean-up; systemd takes the end by
SIGHUP for one that was wanted and starts nothing again.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from typing import Final

_ENDING: Final = (signal.SIGTERM, signal.SIGINT)
# Those that report a bug (and SIGABRT of a watchdog) must end it, those of a terminal stop and
# continue it, and those that the system ignores stay ignored.
_LEFT: Final = frozenset(
    {
        *(signal.SIGKILL, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
        *(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT),
        *(signal.SIGTRAP, signal.SIGSYS, signal.SIGCHLD, signal.SIGCONT, signal.SIGWINCH),
        *(signal.SIGURG, signal.SIGHUP, *_ENDING),
    }
)


def nothing() -> None:
    """Do nothing."""


def survive_signals() -> None:
    """Let no stray signal end this process from now on; to be called in the main thread.

    What is ignored already stays ignored, what has a handler keeps it. Programs that are started
    have the defaults again.
    """
    for number in (signal.SIGHUP, *_stray()):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _ignore)


def handle_signals(stop: Callable[[], object], on_hangup: Callable[[], object] = nothing) -> None:
    """Call `stop` for SIGTERM and SIGINT, `on_hangup` for SIGHUP, in the running event loop.

    No other signal ends the process, except those that report a bug.
    """
    survive_signals()
    loop = asyncio.get_running_loop()
    for number in _ENDING:
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, on_hangup)


def _stray() -> Iterator[int]:
    for number in signal.valid_signals():
        if number not in _LEFT:
            yield number


def _ignore(number: int, frame: object) -> None:
    # Not SIG_IGN, which programs that are started would inherit.
    del number, frame
