"""Agents forked from a process that has imported them, as multiprocessing's forkserver does.

An agent imports for most of the second that its start takes, and tests start hundreds. What runs is
``credspec agent`` as ever, in a process of its own with its own environment, output and signals.
Tests of the start itself, and those that change modules first, have a new interpreter.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from credspec.service.process_safety import OVERWRITING_ALLOCATOR

_MESSAGE_BYTES = 128 * 1024
_MODULES = (
    "credspec.cli.main",
    "credspec.cli.agent",
    "credspec.agent.daemon",
    "credspec.agent.loop_watch",
    "credspec.config.host",
    "dns.resolver",
)


class ForkedProcess:
    """A process that the fork server has started, with what tests use of `subprocess.Popen`."""

    def __init__(self, status: socket.socket) -> None:
        self._status = status
        self.pid = int(status.recv(64))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return how it ended, as `subprocess.Popen.returncode`; None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; raises `subprocess.TimeoutExpired`."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("credspec agent", timeout or 0)
            # With the server itself nobody knows how.
            self.returncode = int(self._status.recv(64) or b"-9")
            self._status.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)

    def __del__(self) -> None:
        self._status.close()


class ForkServer:
    """The process that agents are forked from; it ends with its maker."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=os.environ | OVERWRITING_ALLOCATOR,
                start_new_session=True,
            ).returncode = 0  # not waited for, and not complained about

    def start(
        self, arguments: Sequence[str], log: BinaryIO, environment: dict[str, str], *, first: str
    ) -> ForkedProcess:
        """Start ``credspec`` with arguments; `first` is Python that runs there before."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # With it, the agent need not start over.
            environment = environment | OVERWRITING_ALLOCATOR
            message = json.dumps([[*arguments], environment, str(Path.cwd()), first]).encode()
            assert len(message) < _MESSAGE_BYTES
            socket.send_fds(self._control, [message], [log.fileno(), theirs.fileno()])
        return ForkedProcess(ours)


@functools.cache
def fork_server() -> ForkServer:
    """Return the fork server of this process."""
    return ForkServer()


def serve(control: socket.socket) -> None:
    """Fork what is asked for, and tell how each one ends, until `control` is closed."""
    running: dict[int, int] = {}
    ended, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready = select.select([control, ended], [], [])[0]
        if ended in ready:
            os.read(ended, 4096)
            _tell_ends(running)
        if control not in ready:
            continue
        message, fds, _, _ = socket.recv_fds(control, _MESSAGE_BYTES, 2)
        if not message:
            return
        log, status = fds
        pid = os.fork()
        if pid == 0:
            for fd in (control.fileno(), status, ended, wakeup, *running.values()):
                os.close(fd)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _become(log, *json.loads(message))
        os.close(log)
        running[pid] = status
        os.write(status, b"%d" % pid)


def _tell_ends(running: dict[int, int]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        told = running.pop(pid)
        with suppress(OSError):
            os.write(told, b"%d" % os.waitstatus_to_exitcode(status))
        os.close(told)


def _become(
    log: int, arguments: list[str], environment: dict[str, str], directory: str, first: str
) -> None:
    code: object = 1
    try:
        for fd in (1, 2):
            os.dup2(log, fd)
        os.close(log)
        os.chdir(directory)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["credspec", *arguments]
        exec(first, {})  # noqa: S102 - the test's own
        main: Callable[[], None] = importlib.import_module("credspec.cli.start").main
        main()
        code = 0
    except SystemExit as error:
        code = error.code or 0
    except BaseException:  # noqa: BLE001 - as the interpreter does at the end of a program
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    for name in _MODULES:
        importlib.import_module(name)
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        serve(connection)
