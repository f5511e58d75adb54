"""The journal's records read back, of which thousands are alike but for their container.

The journal writes what is a lease's own first. What follows is the same text for all leases of an
account, so that it is read and checked once.
"""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any, Final

from credspec.agent.leases.record import OWN_FIELDS, LeaseRecord, record_alike, record_from_json
from credspec.contract import c_json

FORMAT: Final = 1
"""The version of the records; a record of another one is not read, and its lease ends."""

TICKETS_FORMAT: Final = 2
"""That of leases without a TGT or cut off, to which readers of `FORMAT` would give a TGT."""

_FORMATS: Final = (FORMAT, TICKETS_FORMAT)
_HEAD: Final = frozenset(("format", *OWN_FIELDS))
_REST: Final = tuple(each.name for each in fields(LeaseRecord) if each.name not in OWN_FIELDS)
_BETWEEN: Final = f', "{_REST[0]}": '.encode()


def record_text(record: LeaseRecord) -> bytes:
    """Return the text of a record, as the journal keeps it."""
    values = record.to_json()
    version = FORMAT if record.has_tgt and not record.revoked else TICKETS_FORMAT
    own = {name: values.pop(name) for name in OWN_FIELDS}
    return json.dumps({"format": version, **own, **values}).encode()


class RecordReader:
    """Reads records; for those of one journal."""

    def __init__(self) -> None:
        self._alike: dict[bytes, dict[str, Any]] = {}

    def read(self, lease_id: str, data: bytes) -> LeaseRecord:
        """Return the record of a lease by its text, which may be anything.

        Raises:
            Exception: of any kind, if it is not such a record.
        """
        # Two objects {A} and {B} are {A, B} in one if they have no member in common: a text in
        # quotes cannot hold what stands between, and nothing is open there if {A} can be read.
        head, between, rest = data.partition(_BETWEEN)
        own = _object(head + b"}") if between else None
        if own is None or own.keys() != _HEAD:
            return record_from_json(lease_id, _members(json.loads(data)))
        own = _members(own)
        known = self._alike.get(rest)
        if known is not None:
            return record_alike(lease_id, own, known)
        others = json.loads(b"{" + between[2:] + rest)
        if not _HEAD.isdisjoint(others):
            return record_from_json(lease_id, _members(json.loads(data)))
        record = record_from_json(lease_id, own | others)
        self._alike[rest] = {name: getattr(record, name) for name in _REST}
        return record


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        found = c_json.loads(data)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _members(raw: dict[str, Any]) -> dict[str, Any]:
    """Take the format out, and refuse one that is unknown."""
    # Of versions that had no number, it is the same.
    if raw.pop("format", FORMAT) not in _FORMATS:
        raise ValueError("of another version")
    return raw
