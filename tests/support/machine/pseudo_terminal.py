"""A person at a terminal: a command gets one of its own, the test types and reads."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE = 60.0


class Terminal:
    """A command with a pseudo-terminal as its controlling one; `shown` is all it has printed."""

    def __init__(
        self, command: list[str], *, rows: int = 24, columns: int = 80, **options: Any
    ) -> None:
        self._master, slave = pty.openpty()
        self.resize(rows, columns)
        self.shown = b""
        # As a shell starts it: only a controlling terminal tells of its new size.
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *command], stdin=slave, stdout=slave, stderr=slave, **options
        )
        os.close(slave)

    def resize(self, rows: int, columns: int) -> None:
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def resize_while_it_runs(self, rows: int, columns: int) -> None:
        """Resize, and tell of it also if it is no change any more."""
        # The docker client listens only a moment after its first size has arrived at the daemon.
        self.resize(rows, columns)
        self.process.send_signal(signal.SIGWINCH)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_for(self, text: str, patience: float = PATIENCE) -> None:
        """Read until `text` has been shown; what comes after it is kept for the next time."""
        if not self._appears(text.encode(), time.monotonic() + patience):
            raise AssertionError(f"{text!r} is not in {self.shown!r}")

    def wait_for_any(self, texts: list[str], patience: float = PATIENCE) -> str:
        """Read until one of `texts` has been shown, and return it; `shown` is not cut."""
        end = time.monotonic() + patience
        while True:
            for text in texts:
                if text.encode() in self.shown:
                    return text
            if not self._receive(end):
                raise AssertionError(f"none of {texts!r} is in {self.shown!r}")

    def ask_until(
        self, question: str, text: str, before: Callable[[], object] = lambda: None
    ) -> None:
        """Type a question again and again, each time after `before`, until it is answered so."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            before()
            self.type(question)
            if self._appears(text.encode(), time.monotonic() + 1):
                return
        raise AssertionError(f"{text!r} is not in {self.shown!r}")

    def exit_status(self) -> int:
        """Read to the end and return how the command ended."""
        end = time.monotonic() + PATIENCE
        while self._receive(end):
            pass
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def _appears(self, text: bytes, end: float) -> bool:
        while text not in self.shown:
            if not self._receive(end):
                return False
        self.shown = self.shown.partition(text)[2]
        return True

    def _receive(self, end: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, end - time.monotonic()))
        try:
            data = os.read(self._master, 65536) if ready else b""
        except OSError:  # EIO: the command has closed its side
            data = b""
        self.shown += data
        return bool(data)


@contextmanager
def terminal(command: list[str], **options: Any) -> Iterator[Terminal]:
    """Run a command at a terminal; it is gone afterwards."""
    running = Terminal(command, **options)
    try:
        yield running
    finally:
        running.close()
