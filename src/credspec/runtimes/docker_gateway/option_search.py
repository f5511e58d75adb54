r"""Whether a create request's body may hold the option ``credentialspec=``, without reading it.

Few bodies do, and reading JSON of megabytes would keep the gateway from all other clients. In JSON
a letter may also be written as ``\u`` and four digits, and Docker's option in any case.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

_OPTION: Final = b"credentialspec"
_STEP_BYTES: Final = 64 * 1024
_LONGEST: Final = 6 * len(_OPTION)  # each letter as \uXXXX


def _letter(code: int) -> bytes:
    lower, upper = bytes([code]), bytes([code]).upper()
    return b"(?:%s|%s|\\\\u00%02x|\\\\u00%02x)" % (lower, upper, code, ord(upper))


# By the first letter in each of its forms, so that most of a body is passed at the speed of memory.
_PATTERN: Final = re.compile(b"".join(map(_letter, _OPTION)), re.IGNORECASE)
_ESCAPE: Final = b"\\u00"


async def may_hold_option(body: bytes | bytearray) -> bool:
    """Return whether the option may be in a body; others get their turn meanwhile."""
    for start in range(0, len(body), _STEP_BYTES):
        part = body[start : start + _STEP_BYTES + _LONGEST]
        if _OPTION in part.lower() or (_ESCAPE in part and _PATTERN.search(part)):
            return True
        await asyncio.sleep(0)
    return False
