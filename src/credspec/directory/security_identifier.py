"""Security identifiers (SIDs), MS-DTYP 2.4.2: binary form of the directory, text form of specs."""

from __future__ import annotations

import struct
from typing import Final

from credspec.errors import CredspecError, PermanentFaultError

_FIXED_BYTES: Final = 8
_MAX_SUB_AUTHORITIES: Final = 15


def sid_to_text(binary: bytes) -> str:
    """Return ``S-1-5-21-...`` for an `objectSid` value.

    Raises:
        CredspecError: `sid-malformed` if the bytes are not a SID.
    """
    if len(binary) < _FIXED_BYTES or binary[0] != 1 or binary[1] > _MAX_SUB_AUTHORITIES:
        raise _malformed(binary)
    if len(binary) != _FIXED_BYTES + 4 * binary[1]:
        raise _malformed(binary)
    authority = int.from_bytes(binary[2:8], "big")
    parts = struct.unpack_from(f"<{binary[1]}I", binary, _FIXED_BYTES)
    return "-".join(["S-1", str(authority), *map(str, parts)])


def _malformed(binary: bytes) -> CredspecError:
    return PermanentFaultError.of(
        "sid-malformed", f"{len(binary)} bytes that are not a SID", where="objectSid"
    )
