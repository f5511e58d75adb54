"""Runs the doctor for a page, one run at a time, in a process of its own: it handles passwords."""

from __future__ import annotations

import json
import subprocess
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from credspec.status_page.feed import Feed

_SECONDS: Final = 180
_LAST_LINES: Final = 5


class DoctorRun:
    """Starts ``credspec check``; the feed's message `doctor` has its steps."""

    def __init__(self, program: Path, feed: Feed) -> None:
        self._program, self._feed = program, feed
        self._running = threading.Lock()

    def start(self, identity: tuple[str, str] | None) -> bool:
        """Begin with the host, and an account of a domain; return False while another run lasts."""
        if not self._running.acquire(blocking=False):
            return False
        command = [str(self._program), "check", "--output", "json"]
        if identity is not None:
            command += [f"--account={identity[0]}", f"--domain={identity[1]}"]
        threading.Thread(target=self._run, args=(command,), daemon=True).start()
        return True

    def _run(self, command: list[str]) -> None:
        try:
            self._feed.put("doctor", {"running": True})
            self._feed.put("doctor", {"running": False, **_outcome(command)})
        finally:
            self._running.release()


def _outcome(command: list[str]) -> dict[str, Any]:
    outcome = _examination(command)
    return {"ended": datetime.now(UTC).isoformat(), **outcome}


def _examination(command: list[str]) -> dict[str, Any]:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"credspec check did not end within {_SECONDS} seconds"}
    except OSError as error:
        return {"error": f"credspec check cannot be run: {error.strerror}"}
    try:
        return dict(json.loads(done.stdout))
    except ValueError:
        return {"error": "\n".join(done.stderr.splitlines()[-_LAST_LINES:])}
