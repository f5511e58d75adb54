"""Domain controllers that go away are replaced in the krb5.conf of living leases."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final

from credspec.agent.identities.identities import Identities
from credspec.service.events import Event, emit

# A controller that is gone is replaced within a minute: this, a second to see it, three to locate.
_INTERVAL_SECONDS: Final = (20.0, 40.0)
_CHANCE: Final = random.SystemRandom()


async def watch_controllers(
    identities: Identities,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    spread: Callable[[float, float], float] = _CHANCE.uniform,
) -> None:
    """Check the controllers of all domains in use again and again, side by side, until cancelled.

    Sleep and chance can be replaced.
    """
    while True:
        await sleep(spread(*_INTERVAL_SECONDS))
        checks = [identities.follow_controllers(key) for key in identities.sessions_in_use()]
        for result in await asyncio.gather(*checks, return_exceptions=True):
            if isinstance(result, Exception):
                # The next round must come whatever happened in this one.
                emit(Event.INTERNAL_ERROR, error=type(result).__name__)
