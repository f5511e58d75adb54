"""An entry of the list, and the lines it is read from.

An audit log has a JSON object a line, see `credspec.agent.audit`; the agent's log has a line an
event, as JSON or as ``key='value'`` pairs, see `credspec.service.events`.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from credspec.service.events import Event

AUDIT: Final = "audit"
LOG: Final = "log"

MAX_LINE: Final = 1 << 18
"""The longest line that is read, in characters."""

_LEVELS: Final = {event.label: event.level for event in Event}
_STRING: Final = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
_PAIR: Final = re.compile(rf"(\w+)=({_STRING}|\[(?:(?:{_STRING})(?:, )?)*\]|[^\s'\"\[]+)(?: |$)")
_HEAD: Final = ("timestamp", "time", "level", "event", "event_id")
_SHORT_ID: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Something that happened.

    `source` is `AUDIT` or `LOG`, `event` the name and `event_id` the number of a
    `credspec.service.events.Event`, `level` its level; `fields` is all else that the line has.
    """

    time: datetime
    source: str
    event: str
    event_id: int
    level: str
    fields: Mapping[str, Any]

    @property
    def accounts(self) -> tuple[str, ...]:
        """The accounts it is about as ``name@domain``, in lower case."""
        domain = str(self.fields.get("domain", ""))
        listed = self.fields.get("accounts")
        names = [str(name) for name in listed] if isinstance(listed, list) else []
        if "identity" in self.fields:
            names.append(str(self.fields["identity"]).partition(" ")[0])
        return tuple(
            (name if "@" in name or not domain else f"{name}@{domain}").lower() for name in names
        )

    def with_fields(self, more: Mapping[str, Any]) -> Entry:
        """Return the entry with fields that it lacks."""
        return replace(self, fields={**more, **self.fields})

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON values."""
        return {
            "time": self.time.isoformat(timespec="milliseconds"),
            "source": self.source,
            "level": self.level,
            "event": self.event,
            "event_id": self.event_id,
            **self.fields,
        }

    def detail(self) -> str:
        """Return what happened to whom, in words, without time and event."""
        return "  ".join(self._parts())

    def _parts(self) -> Iterator[str]:
        rest = dict(self.fields)
        for name in ("decision", "domain", "identity", "accounts"):
            rest.pop(name, None)
        if self.accounts:
            yield ", ".join(self.accounts)
        if container := str(rest.pop("container", "")):
            yield f"container {container[:_SHORT_ID]}"
        lease = str(rest.pop("lease", ""))
        if lease and not container:
            yield f"lease {lease[:_SHORT_ID]}"
        uid, pid = rest.pop("uid", -1), rest.pop("pid", -1)
        if isinstance(uid, int) and uid >= 0:
            yield f"by user {uid}" + (f" (process {pid})" if pid != -1 else "")
        codes, error = rest.pop("errors", None), rest.pop("error", None)
        for name, value in rest.items():
            yield f"{name.replace('_', ' ')} {_shown(value)}"
        if error is not None:
            yield str(error)
        elif isinstance(codes, list):
            yield " ".join(f"[{code}]" for code in codes)


def audit_entry(line: str) -> Entry | None:
    """Return the entry that a line of an audit log is, None if it is none."""
    return _entry(AUDIT, _from_json(line), "time")


def log_entry(line: str) -> Entry | None:
    """Return the entry that a line of the agent's log is, None if it is none."""
    fields = _from_json(line) if line.startswith("{") else _from_text(line)
    return _entry(LOG, fields, "timestamp")


def _from_json(line: str) -> dict[str, Any]:
    if len(line) > MAX_LINE:
        return {}
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _from_text(line: str) -> dict[str, Any]:
    """Return the pairs of ``key=value``, where each value is what `repr` made of it."""
    if len(line) > MAX_LINE or not line.startswith("timestamp="):
        return {}
    fields: dict[str, Any] = {}
    at = 0
    while at < len(line):
        pair = _PAIR.match(line, at)
        if pair is None:
            return {}
        try:
            fields[pair[1]] = ast.literal_eval(pair[2])
        except (ValueError, SyntaxError):
            fields[pair[1]] = pair[2]
        at = pair.end()
    return fields


def _entry(source: str, fields: dict[str, Any], time_name: str) -> Entry | None:
    event, number = fields.get("event"), fields.get("event_id")
    moment = _moment(fields.get(time_name))
    if moment is None or not isinstance(event, str) or type(number) is not int:
        return None
    level = fields.get("level", _LEVELS.get(event, "info"))
    return Entry(
        time=moment,
        source=source,
        event=event,
        event_id=number,
        level=str(level),
        fields={name: value for name, value in fields.items() if name not in _HEAD},
    )


def _moment(text: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str(text))
        return moment.astimezone(UTC) if moment.tzinfo else None
    except (ValueError, OverflowError):
        return None


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
