"""Who a self-relative security descriptor lets in (MS-DTYP 2.4.6), as far as gMSAs need it."""

from __future__ import annotations

import struct
from typing import Final

from credspec.directory.security_identifier import sid_to_text
from credspec.errors import PermanentFaultError

_READ_PROPERTY: Final = 0x10  # ADS_RIGHT_DS_READ_PROP
_GENERIC: Final = 0x80000000 | 0x10000000  # GENERIC_READ, GENERIC_ALL
_ACE_HEADER_AND_MASK: Final = 8  # bytes
_ACCESS_ALLOWED: Final = 0
_ACCESS_ALLOWED_OBJECT: Final = 5


def allowed_readers(descriptor: bytes) -> tuple[str, ...]:
    """Return the SIDs that a descriptor allows to read properties, in its order.

    This is what `msDS-GroupMSAMembership` says of who may read the managed password.

    Raises:
        CredspecError: `security-descriptor-malformed`.
    """
    try:
        dacl: int = struct.unpack_from("<I", descriptor, 16)[0]
        if dacl == 0:
            return ()
        count: int = struct.unpack_from("<H", descriptor, dacl + 4)[0]
        readers: list[str] = []
        offset = dacl + 8
        for _ in range(count):
            kind, _, size, mask = struct.unpack_from("<BBHI", descriptor, offset)
            sid_offset = offset + 8
            if kind == _ACCESS_ALLOWED_OBJECT:
                flags: int = struct.unpack_from("<I", descriptor, sid_offset)[0]
                sid_offset += 4 + 16 * (flags & 1) + 16 * (flags >> 1 & 1)
            if kind in {_ACCESS_ALLOWED, _ACCESS_ALLOWED_OBJECT} and mask & (
                _READ_PROPERTY | _GENERIC
            ):
                length = 8 + 4 * descriptor[sid_offset + 1]
                readers.append(sid_to_text(descriptor[sid_offset : sid_offset + length]))
            if size < _ACE_HEADER_AND_MASK:
                break
            offset += size
    except (struct.error, IndexError):
        raise PermanentFaultError.of(
            "security-descriptor-malformed", f"{len(descriptor)} bytes", where="security descriptor"
        ) from None
    return tuple(dict.fromkeys(readers))
