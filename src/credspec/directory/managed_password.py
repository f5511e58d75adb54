"""The managed-password blob of a gMSA, ``MSDS-MANAGEDPASSWORD_BLOB`` (MS-ADTS 2.2.19).

Bytes in, frozen dataclass out, and back. The intervals are relative to the moment the domain
controller answered; the caller knows that moment.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Self

from credspec.errors import CredspecError, PermanentFaultError

PASSWORD_BYTES: Final = 256
"""Length of a managed password, 128 UTF-16LE code units."""

NEXT_PASSWORD_WINDOW: Final = timedelta(minutes=5)
"""How long before a rollover the blob's current password is already the next one."""

_HEADER: Final = struct.Struct("<HHIHHHH")
_INTERVAL: Final = struct.Struct("<q")
_TERMINATOR: Final = b"\0\0"
_VERSION: Final = 1
# A blob with both passwords is 548 bytes; anything far beyond that is not a managed password.
_MAX_BLOB_BYTES: Final = 4096
# Added to any date, it is still a date.
_LONGEST_INTERVAL: Final = timedelta(days=36500)


@dataclass(frozen=True, slots=True)
class ManagedPassword:
    """The passwords of a gMSA and when to ask again.

    `current` and `previous` are UTF-16LE without the terminator, 256 bytes; they do not show in the
    repr. `query_interval` is the time until the password should be read again, `unchanged_interval`
    the time for which the current password is certain not to change.
    """

    current: bytes = field(repr=False)
    previous: bytes | None = field(repr=False)
    query_interval: timedelta
    unchanged_interval: timedelta

    @property
    def current_is_next(self) -> bool:
        """Whether `current` is the password of the time after the rollover (five-minute rule)."""
        return self.query_interval <= NEXT_PASSWORD_WINDOW

    @property
    def valid_now(self) -> bytes | None:
        """The password in force now, or None if the blob holds only the next one."""
        return self.previous if self.current_is_next else self.current

    def pack(self) -> bytes:
        """Return the blob as a domain controller lays it out, without alignment padding."""
        body = bytearray(self.current + _TERMINATOR)
        previous_offset = 0
        if self.previous is not None:
            previous_offset = _HEADER.size + len(body)
            body += self.previous + _TERMINATOR
        query_offset = _HEADER.size + len(body)
        body += _INTERVAL.pack(_to_ticks(self.query_interval))
        body += _INTERVAL.pack(_to_ticks(self.unchanged_interval))
        header = _HEADER.pack(
            _VERSION,
            0,
            _HEADER.size + len(body),
            _HEADER.size,
            previous_offset,
            query_offset,
            query_offset + _INTERVAL.size,
        )
        return header + bytes(body)

    @classmethod
    def unpack(cls, blob: bytes) -> Self:
        """Read a blob by its offsets.

        Raises:
            CredspecError: `managed-password-malformed`; the text never contains bytes of the blob.
        """
        if not _HEADER.size <= len(blob) <= _MAX_BLOB_BYTES:
            raise _malformed(f"{len(blob)} bytes", f"{_HEADER.size} to {_MAX_BLOB_BYTES} bytes")
        version, reserved, length, current, previous, query, unchanged = _HEADER.unpack_from(blob)
        if version != _VERSION or reserved != 0:
            raise _malformed(f"version {version}, reserved {reserved}", "version 1, reserved 0")
        if length != len(blob):
            raise _malformed(f"length field {length} in {len(blob)} bytes", "the blob's length")
        starts = sorted({current, query, unchanged, length} | ({previous} if previous else set()))
        if starts[0] < _HEADER.size or starts[-1] != length or len(starts) != 4 + bool(previous):
            raise _malformed("offsets that overlap or leave the blob", "distinct offsets inside it")
        return cls(
            current=_password_at(blob, current, starts),
            previous=_password_at(blob, previous, starts) if previous else None,
            query_interval=_interval_at(blob, query),
            unchanged_interval=_interval_at(blob, unchanged),
        )


def _password_at(blob: bytes, offset: int, starts: list[int]) -> bytes:
    # The field ends where the next one starts: a NUL unit inside would be part of the password.
    end = starts[starts.index(offset) + 1]
    # Padding may follow the terminator, but the password's own length is fixed.
    terminated = blob[offset : min(end, offset + PASSWORD_BYTES + len(_TERMINATOR))]
    if len(terminated) != PASSWORD_BYTES + len(_TERMINATOR) or terminated[-2:] != _TERMINATOR:
        raise _malformed("a password field of another form", "256 bytes and a terminator")
    return terminated[:-2]


def _interval_at(blob: bytes, offset: int) -> timedelta:
    if offset + _INTERVAL.size > len(blob):
        raise _malformed("an interval that leaves the blob", "8 bytes inside it")
    ticks: int = _INTERVAL.unpack_from(blob, offset)[0]
    if ticks < 0:
        raise _malformed("a negative interval", "a time to come")
    return min(timedelta(microseconds=ticks // 10), _LONGEST_INTERVAL)


def _to_ticks(interval: timedelta) -> int:
    return (interval // timedelta(microseconds=1)) * 10


def _malformed(found: str, expected: str) -> CredspecError:
    return PermanentFaultError.of(
        "managed-password-malformed",
        found,
        where="msDS-ManagedPassword",
        expected=expected,
        remedy="check that the answer comes from a domain controller of Windows Server 2012 or "
        "Samba 4.21 or newer",
    )
