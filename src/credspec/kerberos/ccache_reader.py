"""Reads credential caches of type FILE, version 4; what is in them may be anything.

A container's program may have written the file, so nothing in it is believed: callers may put
records back where they came from, and look at names and times.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, NamedTuple

MOST_BYTES: Final = 4 << 20
"""A longer file is not read."""

_VERSION_4: Final = b"\x05\x04"
_MOST_COMPONENTS: Final = 16
_MOST_RECORDS: Final = 1024
_MOST_LISTED: Final = 64


class CacheMalformedError(Exception):
    """It is no credential cache of version 4, or a damaged one."""


@dataclass(frozen=True, slots=True)
class CacheRecord:
    """A ticket in a cache: whose, of which service, until when, and all of it as it stood there."""

    client: str
    server: str
    end: datetime
    data: bytes = field(repr=False)


class Cache(NamedTuple):
    """A credential cache: its default principal, and what it holds."""

    principal: str
    records: tuple[CacheRecord, ...]


def read_ccache(data: bytes) -> Cache:
    """Return what a FILE cache holds.

    Raises:
        CacheMalformedError: it cannot be read; also if it is longer than `MOST_BYTES`.
    """
    if len(data) > MOST_BYTES or not data.startswith(_VERSION_4):
        raise CacheMalformedError
    reader = _Reader(data, len(_VERSION_4))
    reader.take(reader.number(2))
    principal = reader.principal()
    records: list[CacheRecord] = []
    while reader.at < len(data):
        if len(records) >= _MOST_RECORDS:
            raise CacheMalformedError
        begin = reader.at
        client, server = reader.principal(), reader.principal()
        reader.take(2)
        reader.counted()
        _, _, end, _ = (reader.number(4) for _ in range(4))
        reader.take(1 + 4)
        for _ in range(2):  # addresses, authorization data
            for _ in range(reader.count(_MOST_LISTED)):
                reader.take(2)
                reader.counted()
        reader.counted()
        reader.counted()
        ends = datetime.fromtimestamp(end, UTC)
        records.append(CacheRecord(client, server, ends, data[begin : reader.at]))
    return Cache(principal, tuple(records))


class _Reader:
    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self.at = at

    def take(self, length: int) -> bytes:
        if length > len(self._data) - self.at:
            raise CacheMalformedError
        self.at += length
        return self._data[self.at - length : self.at]

    def number(self, length: int) -> int:
        return int.from_bytes(self.take(length), "big")

    def count(self, most: int) -> int:
        found = self.number(4)
        if found > most:
            raise CacheMalformedError
        return found

    def counted(self) -> bytes:
        return self.take(self.number(4))

    def principal(self) -> str:
        self.take(struct.calcsize(">I"))  # the type of the name
        components = self.count(_MOST_COMPONENTS)
        realm = self.counted()
        name = b"/".join(self.counted() for _ in range(components))
        return f"{name.decode('utf-8', 'replace')}@{realm.decode('utf-8', 'replace')}"
