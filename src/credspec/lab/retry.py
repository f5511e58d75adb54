"""Trying again what a controller that has only just started may not be ready for."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

from credspec.errors import CredspecError

ATTEMPTS: Final = 6
_FIRST_SECONDS: Final = 1.0
_LONGEST_SECONDS: Final = 10.0

T = TypeVar("T")


def retry(
    call: Callable[[], T],
    *,
    between: Callable[[], None] = lambda: None,
    attempts: int = ATTEMPTS,
    sleep: Callable[[float], None] = time.sleep,
    uniform: Callable[[float, float], float] = random.uniform,
) -> T:
    """Return what `call` returns, at one of its first `attempts` attempts.

    Waits between attempts: 1 second doubling up to 10, each between a half and the whole of that,
    and then calls `between`, which undoes what the failed attempt has left.

    Raises:
        CredspecError: of the last attempt; and whatever `between` raises.
    """
    longest = _FIRST_SECONDS
    for _ in range(attempts - 1):
        try:
            return call()
        except CredspecError:
            sleep(uniform(longest / 2, longest))
            longest = min(longest * 2, _LONGEST_SECONDS)
            between()
    return call()
