"""The journal: one record for each lease, written before the lease has any effect.

It lives on tmpfs, as the leases themselves do: what a restart of the agent must know survives, and
a restart of the host, which ends all containers, forgets it. No record holds a secret.

Records are read by later and earlier versions: `FORMAT` changes when a reader that does not know a
new field would treat the lease wrongly. Within a format, fields it does not know are ignored.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from credspec.agent.policy import GRPC_SOURCE, SPEC_SOURCES
from credspec.directory.account_identity import valid_account_name
from credspec.directory.locator import valid_domain
from credspec.errors import CredspecError

MAX_RECORD_BYTES: Final = 32 * 1024
"""The longest record that is written or read."""

FORMAT: Final = 1
"""The version of the records; a record of another one is not read, and its lease ends."""

LEASE_ID: Final = re.compile(r"[0-9a-f]{32}")
"""What a lease's id looks like; anything else never becomes a path."""

_UNFINISHED: Final = ".new"
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAX_NUMBER: Final = 2**32
_PLACE_PARTS: Final = 3
_TEXTS: Final = ("container", "runtime_state", "domain", "default_account")
# What lies outside is no time of a ticket, and arithmetic with it would overflow.
_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
_FLAGS: Final = ("ready", "keytab", "name_fallback", "replay_cache")
_TIMES: Final = ("created", "ticket_start", "ticket_end", "keytab_due")


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    """What is known of a lease.

    `container` is the runtime's id of the container and `runtime_state` the directory in which the
    runtime keeps it as long as it exists, or the lock of a process (`LeaseDirectory.lock`); `uid`
    and `gid` are the host's numbers of its user; `user` is the unprivileged user who made it, None
    for the host's own. `default_account` and `accounts` are without ``$``; `ready` tells whether
    the container was given its tickets, `ticket_start` and `ticket_end` from when to when all of
    them are good. `mode` is that of the files; with `keytab` there is one of all accounts, and
    `keytab_due` is when it must be made again. `name_fallback` is whether its krb5.conf may
    have ``dns_canonicalize_hostname = fallback``, `replay_cache` whether the directory has one for
    replay caches. `host_source` is what the host logs on with, if it
    is not the machine identity: `guid` and `input` of a plug-in, without `input` where that may
    hold a secret; empty for an account that came with the request. `place` is the directory of a
    lease that has its files in a tree of others. `spec_source` tells where its spec came from:
    ``file``, ``raw``, or ``grpc`` for a call that brought it. `created_monotonic` is when it was
    made by the clock that is never set (CLOCK_MONOTONIC), in seconds, None if that is unknown.
    """

    lease_id: str
    container: str
    runtime_state: str
    uid: int
    gid: int
    domain: str
    default_account: str
    accounts: tuple[str, ...]
    created: datetime
    ready: bool = False
    ticket_start: datetime | None = None
    ticket_end: datetime | None = None
    user: int | None = None
    mode: int = 0o600
    keytab: bool = False
    keytab_due: datetime | None = None
    name_fallback: bool = False
    replay_cache: bool = False
    host_source: dict[str, str] | None = field(default=None, repr=False, hash=False)
    place: str | None = None
    spec_source: str = "file"
    created_monotonic: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        # Not asdict, which copies every value deeply.
        values: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        values["accounts"] = list(self.accounts)
        for name in _TIMES:
            values[name] = None if values[name] is None else values[name].isoformat()
        return values


_FIELDS: Final = frozenset(each.name for each in fields(LeaseRecord))


class Journal:
    """Records in a directory that only root can enter."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, record: LeaseRecord) -> None:
        """Write or replace a lease's record, atomically.

        Raises:
            CredspecError: `journal-unwritable`, `journal-record-too-long`.
        """
        path = self._path(record.lease_id)
        temporary = path.with_suffix(_UNFINISHED)
        data = json.dumps({"format": FORMAT, **record.to_json()}).encode()
        if len(data) > MAX_RECORD_BYTES:
            raise CredspecError.of(
                "journal-record-too-long",
                f"{len(data)} bytes for one lease",
                where=f"journal {self._directory}",
                expected=f"at most {MAX_RECORD_BYTES}",
                remedy="divide the accounts among several credential specs",
            )
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            raise self._unwritable(error) from None

    def remove(self, lease_id: str) -> None:
        """Remove a lease's record; one that is not there is fine.

        Raises:
            CredspecError: `journal-unwritable`.
        """
        try:
            self._path(lease_id).unlink(missing_ok=True)
        except OSError as error:
            raise self._unwritable(error) from None

    def remove_leftovers(self) -> None:
        """Remove what a run that was killed had begun to write; no run may be writing now."""
        for path in self._directory.glob(f"*{_UNFINISHED}"):
            with suppress(OSError):
                path.unlink()

    def records(self) -> Iterator[LeaseRecord | str]:
        """Return all records; of one that cannot be read, its lease id."""
        for path in sorted(self._directory.glob("*.json")):
            if not LEASE_ID.fullmatch(path.stem):
                continue
            try:
                record = _record(path.stem, _read(path))
            except Exception:  # noqa: BLE001 - whatever is in it, it costs this lease only
                yield path.stem
                continue
            yield record

    def _unwritable(self, error: OSError) -> CredspecError:
        return CredspecError.of(
            "journal-unwritable",
            error.strerror or str(error),
            where=f"journal {self._directory}",
            remedy="free space there, or make it writable (df, mount)",
        )

    def _path(self, lease_id: str) -> Path:
        if not LEASE_ID.fullmatch(lease_id):
            raise ValueError("not a lease id")
        return self._directory / f"{lease_id}.json"


def _read(path: Path) -> bytes:
    fd = os.open(path, _OPEN)
    try:
        data = os.read(fd, MAX_RECORD_BYTES + 1)
    finally:
        os.close(fd)
    if len(data) > MAX_RECORD_BYTES:
        raise ValueError("too long")
    return data


def _record(lease_id: str, data: bytes) -> LeaseRecord:
    """Return a record of which every field is what this module would have written.

    Raises:
        Exception: of any kind.
    """
    raw: dict[str, Any] = json.loads(data)
    if raw.pop("format", FORMAT) != FORMAT:  # of versions that had no number, it is the same
        raise ValueError("of another version")
    raw = {name: value for name, value in raw.items() if name in _FIELDS}
    for name in _TIMES:
        if raw.get(name) is not None or name == "created":
            raw[name] = datetime.fromisoformat(raw[name]).astimezone(UTC)
    raw["accounts"] = tuple(raw["accounts"])
    if raw.get("place") is not None:
        raw.setdefault("spec_source", GRPC_SOURCE)  # of a version that did not say
    record = LeaseRecord(**raw)
    start, end = record.ticket_start, record.ticket_end
    is_sound = (
        record.lease_id == lease_id
        and all(isinstance(getattr(record, name), str) for name in _TEXTS)
        and "\0" not in record.runtime_state
        and all(_is_number(number) for number in (record.uid, record.gid, record.mode))
        and (record.user is None or _is_number(record.user))
        and all(type(getattr(record, name)) is bool for name in _FLAGS)
        and _is_place(record.place)
        and record.spec_source in {*SPEC_SOURCES, GRPC_SOURCE}
        and _is_moment(record.created_monotonic)
        and _is_host_source(record.host_source)
        and (start is None or end is None or start <= end)
        and all(_EARLIEST < getattr(record, name) < _LATEST for name in _given_times(record))
    )
    if not is_sound or not record.accounts:
        raise ValueError("not a record")
    valid_domain(record.domain)
    for account in (record.default_account, *record.accounts):
        name, _, domain = account.partition("@")
        valid_account_name(name)
        valid_domain(domain or record.domain)
    return record


def _given_times(record: LeaseRecord) -> list[str]:
    return [name for name in _TIMES if getattr(record, name) is not None]


def _is_number(value: object) -> bool:
    return type(value) is int and 0 <= value < _MAX_NUMBER


def _is_moment(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isfinite(value))


def _is_place(value: object) -> bool:
    """Return whether it is TREE/LEASE/ACCOUNT, as `LeaseDirectory.of` wants it, or None."""
    if value is None:
        return True
    if not isinstance(value, str) or "\0" in value:
        return False
    parts = value.split("/")
    return (
        value.startswith("/") and len(parts) > _PLACE_PARTS and not {"", ".", ".."} & {*parts[1:]}
    )


def _is_host_source(value: object) -> bool:
    return value is None or (
        isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
    )
