"""The audit log: who asked for which accounts for which container, and what the answer was.

One JSON object a line, appended and never rewritten:

    {"time", "event", "event_id", "decision": "granted" | "denied" | "released" | "revoked",
     "uid", "pid", "lease", "container", "spec", "domain", "accounts", "host_account", "errors"}

`host_account` is what the host logs on with, if not as itself. `spec` is the reference;
of a ``raw://`` document only its SHA-256. Fail closed: what cannot be written here is not granted.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from credspec.agent.events import Event, emit
from credspec.errors import CredspecError

_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asked, by the kernel's word."""

    uid: int
    pid: int


NOBODY: Final = Caller(-1, -1)
"""The caller of what the agent does by itself."""


class AuditLog:
    """A file that only grows; opened for each line, so that it may be rotated at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, event: Event, caller: Caller, **fields: Any) -> None:
        """Append a decision.

        Raises:
            CredspecError: `audit-unwritable`.
        """
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "event": event.label,
            "event_id": event.number,
            "uid": caller.uid,
            "pid": caller.pid,
            **fields,
        }
        line = (json.dumps(entry) + "\n").encode()
        try:
            fd = os.open(self._path, _FLAGS, 0o600)
            try:
                written = os.write(fd, line)
            finally:
                os.close(fd)
        except OSError as error:
            self._unwritable(error.strerror or str(error))
        else:
            if written != len(line):
                self._unwritable("no space left")

    def _unwritable(self, reason: str) -> None:
        emit(Event.AUDIT_UNWRITABLE, path=str(self._path), error=reason)
        raise CredspecError.of(
            "audit-unwritable",
            reason,
            where=f"audit log {self._path}",
            remedy="make room for it, or name another file with audit_log in the configuration",
        )


def shown(reference: str) -> str:
    """Return a reference as it may be logged: of a document only its hash."""
    scheme, separator, value = reference.partition("://")
    if separator and scheme.lower() == "raw":
        return f"raw:sha256:{hashlib.sha256(value.encode('utf-8', 'surrogatepass')).hexdigest()}"
    return reference[:300]
