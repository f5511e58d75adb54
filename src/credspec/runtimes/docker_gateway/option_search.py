r"""Whether a create request's body may hold a credential spec, without reading it.

The option is ``credentialspec=``; annotations, variables and mounts have ``credspec`` in them.

Few bodies do, and reading JSON of megabytes would keep the gateway from all other clients. In JSON
a letter may also be written as ``\u`` and four digits, and Docker's option in any case.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

_WORDS: Final = (b"credentialspec", b"credspec")
_STEP_BYTES: Final = 64 * 1024
_LONGEST: Final = 6 * max(map(len, _WORDS))  # each letter as \uXXXX


def _letter(code: int) -> bytes:
    lower, upper = bytes([code]), bytes([code]).upper()
    return b"(?:%s|%s|\\\\u00%02x|\\\\u00%02x)" % (lower, upper, code, ord(upper))


# By the first letter in each of its forms, so that most of a body is passed at the speed of memory.
_PATTERN: Final = re.compile(
    b"|".join(b"".join(map(_letter, word)) for word in _WORDS), re.IGNORECASE
)
_ESCAPE: Final = b"\\u00"


async def may_hold_spec(body: bytes | bytearray) -> bool:
    """Return whether a spec may be in a body; others get their turn meanwhile."""
    for start in range(0, len(body), _STEP_BYTES):
        part = body[start : start + _STEP_BYTES + _LONGEST]
        lower = part.lower()
        if any(word in lower for word in _WORDS) or (_ESCAPE in part and _PATTERN.search(part)):
            return True
        await asyncio.sleep(0)
    return False
