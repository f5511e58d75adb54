"""A program run to its end, with every signal that this process gets forwarded to it.

Signals are blocked from before the program is started until after it has ended, and fetched one by
one (sigwaitinfo(2)). So none arrives between two steps: not before the program can be named, not
after its number may belong to another process.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final, NoReturn

from credspec.errors import CredspecError, ExitStatus

PASSED_ON: Final = frozenset(
    {
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
    }
)
"""Signals that reach the program; one that was ignored before stays so, for both."""

_BY_SIGNAL: Final = 128
_FROM_TERMINAL: Final = 0x80  # SI_KERNEL of sigaction(2)


class ProgramNotFoundError(CredspecError):
    """There is no such program."""

    exit_status = ExitStatus.PROGRAM_NOT_FOUND


class ProgramNotExecutableError(CredspecError):
    """The program is there, but cannot be started."""

    exit_status = ExitStatus.PROGRAM_NOT_EXECUTABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessUser:
    """Whom a program runs as: numbers, and the variables that tell it so."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HeldSignals:
    """Signals that are blocked here; `before` is the mask that the program is to have."""

    signals: frozenset[signal.Signals]
    before: frozenset[int]

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a signal end this process as usual while the block runs (`SystemExit`)."""
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self.signals)
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, self.signals)

    def discard(self) -> None:
        """Forget the signals that came too late for anybody."""
        while signal.sigtimedwait(self.signals, 0) is not None:
            pass


@contextmanager
def held_signals() -> Iterator[HeldSignals]:
    """Block the signals that are passed on while the block runs; those left at its end are lost."""
    kept = frozenset(n for n in PASSED_ON if signal.getsignal(n) is not signal.SIG_IGN)

    def leave(number: int, _: object) -> NoReturn:
        # What is cleaned up on the way out is not interrupted a second time.
        signal.pthread_sigmask(signal.SIG_BLOCK, kept)
        raise SystemExit(_BY_SIGNAL + number)

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, kept)
    handlers = {number: signal.signal(number, leave) for number in kept}
    held = HeldSignals(kept, frozenset(mask))
    try:
        yield held
    finally:
        held.discard()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def run_program(
    command: Sequence[str],
    environment: Mapping[str, str],
    held: HeldSignals,
    *,
    pass_fds: tuple[int, ...] = (),
    user: ProcessUser | None = None,
) -> int:
    """Run a program to its end and return its exit status, 128 and the number for a signal.

    Signals that are held, also those that came before, reach the program. What a terminal sends
    goes to both anyway, and is not sent twice.

    Raises:
        ProgramNotFoundError, ProgramNotExecutableError: `program-not-started`.
    """
    # A parent that ignored this would have left us without exit statuses.
    ended = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    try:
        process = _started(command, environment, held, pass_fds, user)
        try:
            while process.poll() is None:
                received = signal.sigwaitinfo({*held.signals, signal.SIGCHLD})
                if received.si_signo != signal.SIGCHLD and not _has_it(process.pid, received):
                    with suppress(PermissionError):  # it may have become another user
                        os.kill(process.pid, received.si_signo)
        except BaseException:
            process.kill()
            process.wait()
            raise
    finally:
        signal.signal(signal.SIGCHLD, ended)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    status = process.returncode
    return status if status >= 0 else _BY_SIGNAL - status


def _has_it(pid: int, received: signal.struct_siginfo) -> bool:
    """Return whether a terminal has sent a signal to the program as well."""
    return received.si_code == _FROM_TERMINAL and os.getpgid(pid) == os.getpgrp()


def _started(
    command: Sequence[str],
    environment: Mapping[str, str],
    held: HeldSignals,
    pass_fds: tuple[int, ...],
    user: ProcessUser | None,
) -> subprocess.Popen[bytes]:
    def restore() -> None:
        # In the child, whose handlers would be ours until the program takes its place.
        for number in held.signals:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, held.before)

    try:
        return subprocess.Popen(
            list(command),
            env=environment,
            pass_fds=pass_fds,
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=user.groups if user else None,
            preexec_fn=restore,  # noqa: PLW1509 - this process has one thread
        )
    except (OSError, ValueError) as error:
        is_missing = isinstance(error, OSError) and error.errno == errno.ENOENT
        kind = ProgramNotFoundError if is_missing else ProgramNotExecutableError
        raise kind.of(
            "program-not-started",
            getattr(error, "strerror", None) or str(error),
            where=command[0][:200],
        ) from None
