"""Runs one program and ends it with all that it started, also what went into a session of its own.

It is a program itself, run by its path and with only the standard library: a subreaper
(prctl(2)), to which everything falls whose parent has ended. It ends when the program does, or
when the other end of the socket is closed whose number is its first argument. The program has its
standard input and output; nothing of what goes through them is seen here. If the program cannot
be started, the socket gets the number of the error.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
from typing import Final

_PR_SET_CHILD_SUBREAPER: Final = 36
_ROUNDS: Final = 100
_ROUND_SECONDS: Final = 0.05
_NOT_STARTED: Final = 126
_KILLED: Final = 137


def main() -> int:
    """Run the program of the arguments; return its exit status, 137 if it was ended."""
    control, command = int(sys.argv[1]), sys.argv[2:]
    os.set_inheritable(control, False)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    program = os.fork()
    if program == 0:
        _become(command, control)
    # The reader must see the end when the program's own ends are closed.
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    status = _KILLED
    while True:
        ready, _, _ = select.select([control, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
        ended = _reap()
        if ended is not None and program in ended:
            status = ended[program]
        if control in ready or ended is None or program in ended:
            break
    _end_all(woken)
    return status


def _become(command: list[str], control: int) -> None:
    # What the interpreter ignores, the program would ignore, too.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    environment = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    try:
        os.execve(command[0], command, environment)  # noqa: S606 - that is what this is for
    except OSError as error:
        os.write(control, str(error.errno or 0).encode())
    finally:
        os._exit(_NOT_STARTED)


def _reap() -> dict[int, int] | None:
    """Return the exit statuses of children that have ended; None if there is no child at all."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended or None
        if pid == 0:
            return ended
        ended[pid] = os.waitstatus_to_exitcode(status) & 0xFF


def _end_all(woken: int) -> None:
    """Kill all descendants until there is none, for some seconds at most."""
    for _ in range(_ROUNDS):
        for pid in _descendants():
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue  # it has ended, or is no longer ours to end
        if _reap() is None:
            return
        if select.select([woken], [], [], _ROUND_SECONDS)[0]:
            os.read(woken, 4096)


def _descendants() -> set[int]:
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - the standard library's cheapest call
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                    # The name in parentheses may hold anything.
                    parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue
    found: set[int] = set()
    below = {os.getpid()}
    while below:
        below = {pid for pid, parent in parents.items() if parent in below} - found
        found |= below
    return found


if __name__ == "__main__":
    sys.exit(main())
