"""The programs of a test cluster as processes, with a log each."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path


class NodePrograms:
    """Starts, stops and watches programs whose logs are in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._commands: dict[str, list[str]] = {}

    def run(self, name: str, command: list[str]) -> None:
        """Start a program."""
        self._commands[name] = command
        with (self._directory / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True
            )

    def names(self) -> list[str]:
        """Return which have been started and not stopped, the first one first."""
        return list(self._processes)

    def pid(self, name: str) -> int:
        """Return the process of a program."""
        return self._processes[name].pid

    def stop(self, name: str, number: int = signal.SIGTERM) -> None:
        """End a program by a signal."""
        process = self._processes.pop(name)
        process.send_signal(number)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def restart(self, name: str) -> None:
        """Start a program again that was stopped."""
        self.run(name, self._commands[name])

    def log(self, name: str) -> str:
        """Return what a program has logged."""
        return (self._directory / f"{name}.log").read_text(errors="replace")

    def check(self) -> None:
        """Look whether all of them run.

        Raises:
            AssertionError: one has ended.
        """
        for name, process in self._processes.items():
            assert process.poll() is None, f"{name} ended: {self.log(name)[-2000:]}"
