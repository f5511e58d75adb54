"""The audit log: who asked for which accounts for which container, and what the answer was.

One JSON object a line, appended and never rewritten:

    {"time", "event", "event_id", "decision": "granted" | "denied" | "released" | "revoked",
     "uid", "pid", "lease", "container", "spec", "domain", "accounts", "host_account", "errors",
     "suppressed"}

`host_account` is what the host logs on with, if not as itself. `spec` is the reference if that is
``file://`` and a plain name; of anything else, which may be a document that holds a password, only
the SHA-256. `suppressed` counts requests of a user that were denied and have no line of their own:
each user has 20 such lines a minute. Fail closed: what cannot be written here is not granted.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from credspec.agent.blocking_calls import BlockingCalls
from credspec.errors import CredspecError
from credspec.rate_limit import Throttle
from credspec.service.events import Event, emit

_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


_SECONDS: Final = 5.0
_EVENTS, _EVENT_SECONDS = 5, 60.0
# A document, however it is misspelt, has braces and quotation marks.
_PLAIN_NAME: Final = re.compile(r"[\w.@+\-][\w.@+\-/ ]{0,254}")


class Caller(NamedTuple):
    """Who asked, by the kernel's word."""

    uid: int
    pid: int


NOBODY: Final = Caller(-1, -1)
"""The caller of what the agent does on its own."""


class AuditUnwritableError(CredspecError):
    """A decision cannot be written down, so that nothing is granted: `audit-unwritable`."""


class AuditLog:
    """A file that only grows; opened for each line, so that it may be rotated at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._calls: BlockingCalls[str] = BlockingCalls()
        self._events: Throttle[str] = Throttle(_EVENTS, _EVENT_SECONDS)

    async def record(self, event: Event, caller: Caller, **fields: Any) -> None:
        """Append a decision; a disk that does not answer holds nobody else up.

        Raises:
            CredspecError: `audit-unwritable`, also after five seconds.
        """
        write = partial(self.write, event, caller, **fields)
        try:
            await self._calls.run("audit", write, _SECONDS, f"audit log {self._path}")
        except AuditUnwritableError:
            raise
        except CredspecError as error:
            self._unwritable(error.problems[0].found)

    def write(self, event: Event, caller: Caller, **fields: Any) -> None:
        """Append a decision; this may block, see `record`.

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
        for suppressed in self._events.take_suppressed():
            emit(Event.AUDIT_UNWRITABLE, path=str(self._path), suppressed=suppressed.count)
        if self._events.allows(reason):
            emit(Event.AUDIT_UNWRITABLE, path=str(self._path), error=reason)
        raise AuditUnwritableError.of(
            "audit-unwritable",
            reason,
            where=f"audit log {self._path}",
            remedy="free space for it, or name another file with audit_log in the configuration",
        )


def redacted(reference: str) -> str:
    """Return a reference as it may be logged: of what may be a document only its hash."""
    scheme, separator, value = reference.partition("://")
    if separator and scheme == "file" and _PLAIN_NAME.fullmatch(value):
        return reference
    is_raw = bool(separator) and scheme.lower() == "raw"
    hashed = value if is_raw else reference
    digest = hashlib.sha256(hashed.encode("utf-8", "surrogatepass")).hexdigest()
    return f"raw:sha256:{digest}" if is_raw else f"sha256:{digest}"
