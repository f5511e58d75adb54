"""MD4 (RFC 1320), which RC4 Kerberos keys need and OpenSSL 3 no longer offers.

Not for anything but deriving the key of an account that the domain still serves with RC4.
"""

from __future__ import annotations

import struct
from typing import Final

_MASK: Final = 0xFFFFFFFF
_INITIAL: Final = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
_ORDER: Final = (
    tuple(range(16)),
    (0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15),
    (0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15),
)
_SHIFTS: Final = ((3, 7, 11, 19), (3, 5, 9, 13), (3, 9, 11, 15))
_CONSTANTS: Final = (0, 0x5A827999, 0x6ED9EBA1)


def md4(message: bytes) -> bytes:
    """Return the 16-byte MD4 digest of `message`."""
    padded = message + b"\x80" + b"\0" * ((55 - len(message)) % 64)
    padded += struct.pack("<Q", 8 * len(message))
    state = list(_INITIAL)
    for start in range(0, len(padded), 64):
        words = struct.unpack_from("<16I", padded, start)
        a, b, c, d = state
        for turn in range(3):
            for step, index in enumerate(_ORDER[turn]):
                mixed = (a + _mix(turn, b, c, d) + words[index] + _CONSTANTS[turn]) & _MASK
                shift = _SHIFTS[turn][step % 4]
                rotated = ((mixed << shift) | (mixed >> (32 - shift))) & _MASK
                a, b, c, d = d, rotated, b, c
        state = [(x + y) & _MASK for x, y in zip(state, (a, b, c, d), strict=True)]
    return struct.pack("<4I", *state)


def _mix(turn: int, x: int, y: int, z: int) -> int:
    if turn == 0:
        return (x & y) | (~x & z)
    if turn == 1:
        return (x & y) | (x & z) | (y & z)
    return x ^ y ^ z
