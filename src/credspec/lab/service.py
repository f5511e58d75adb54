"""A lab's long-running processes: started detached, found again, stopped with all they started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from credspec.errors import CredspecError

_START_SECONDS: Final = 180.0
_STOP_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Service:
    """A service of a lab by its name; `directory` holds its record and its log."""

    name: str
    directory: Path

    @property
    def log(self) -> Path:
        """What the service prints."""
        return self.directory / f"{self.name}.log"

    @property
    def _record(self) -> Path:
        return self.directory / f"{self.name}.pid"

    def start(self, command: list[str], environment: dict[str, str]) -> None:
        """Start the service, unless it runs."""
        if self.pid() is not None:
            return
        # Kerberos acceptors would keep their replay caches in /var/tmp, where they outlive the lab.
        environment = environment | {"KRB5RCACHENAME": "none:"}
        # Not Popen: the service outlives this process, and nobody here waits for it.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(self.log), flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        pid = os.posix_spawnp(command[0], command, environment, file_actions=actions, setsid=True)
        record = {"pid": pid, "started": _start_time(pid)}
        self._record.write_text(json.dumps(record), "utf-8")

    def pid(self) -> int | None:
        """Return the service's process, unless it has ended and its number is another's."""
        try:
            record = json.loads(self._record.read_text("utf-8"))
            pid = int(record["pid"])
            return pid if _start_time(pid) == record["started"] else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def stop(self) -> None:
        """End the service and all it started."""
        pid = self.pid()
        if pid is not None:
            processes = _processes_below(pid)
            # Killing the first process of a pid namespace ends all in it, frozen or not.
            for process in [pid, *processes]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
            wait_for(
                lambda: not any(_start_time(p) for p in processes),
                f"the end of {self.name}",
                self.log,
                _STOP_SECONDS,
            )
        self._record.unlink(missing_ok=True)

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to all processes of the service, also to those that start meanwhile."""
        pid = self.pid()
        signalled: set[int] = set()
        while pid is not None and (new := set(_processes_below(pid)) - signalled):
            signalled |= new
            for process in new:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, number)


def wait_for(
    condition: Callable[[], Any], what: str, log: Path, seconds: float = _START_SECONDS
) -> None:
    """Wait until a condition holds; `log` is shown if it does not.

    Raises:
        CredspecError: `lab-timeout`.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            with contextlib.suppress(OSError):
                what += f"; its log ends: {log.read_text('utf-8', 'replace')[-400:].strip()}"
            raise CredspecError.of("lab-timeout", f"waited {seconds:.0f} s for {what}", where="lab")
        time.sleep(0.1)


def _start_time(pid: int) -> str | None:
    """Return when a process started, in the kernel's ticks; None if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def _processes_below(pid: int) -> list[int]:
    """Return all descendants of a process."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text("utf-8").rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found
