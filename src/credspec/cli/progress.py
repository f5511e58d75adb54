"""Steps that take their time, each with how long it took; on a terminal with a clock that runs."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO


class Progress:
    """Writes a line for each step, ended by its seconds. To be called with a step's text.

    On a terminal the seconds are counted while the step runs. Leaving it as a context manager ends
    the last step's line.
    """

    def __init__(
        self, stream: TextIO | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        self._step = ""
        self._since = 0.0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._ticker: threading.Thread | None = None
        self.steps = 0

    def __enter__(self) -> Self:
        if self._stream.isatty():
            self._ticker = threading.Thread(target=self._tick, daemon=True)
            self._ticker.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._ticker is not None:
            self._ticker.join()
        with self._lock:
            self._end(done=kind is None)

    def __call__(self, step: str) -> None:
        """Begin a step, which ends the one before."""
        with self._lock:
            self._end(done=True)
            self.steps += 1
            self._step, self._since = step, self._clock()
            self._stream.write(f"{step} ...")
            self._stream.flush()

    def _end(self, *, done: bool) -> None:
        if self._step:
            took = f" {self._clock() - self._since:.1f} s" if done else ""
            start = f"\r{self._step} ..." if self._ticker is not None else ""
            self._stream.write(f"{start}{took}\n")
            self._stream.flush()
            self._step = ""

    def _tick(self) -> None:
        while not self._over.wait(1.0):
            with self._lock:
                if self._step:
                    self._stream.write(f"\r{self._step} ... {self._clock() - self._since:.0f} s")
                    self._stream.flush()
