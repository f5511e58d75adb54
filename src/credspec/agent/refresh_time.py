"""When an identity is to be acquired again. Pure, so that a fleet can be simulated with it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

# Half to two thirds of a ticket's life: far from its end, and spread over a sixth of it.
_EARLIEST_SHARE: Final = 0.5
_LATEST_SHARE: Final = 2 / 3
# After a rollover: late enough for a domain controller whose clock is a little behind.
_AFTER_ROLLOVER: Final = (timedelta(seconds=5), timedelta(seconds=60))
_FIRST_RETRY: Final = timedelta(seconds=5)
_LONGEST_RETRY: Final = timedelta(minutes=10)

Spread = Callable[[float, float], float]
"""Returns a random number between two bounds, such as `random.Random().uniform`."""


def refresh_time(
    *,
    start: datetime,
    end: datetime,
    password_due: datetime,
    spread: Spread,
) -> datetime:
    """Return when to acquire again after a success.

    `start` and `end` are the ticket's, `password_due` is when the domain said to ask for the
    password again. The earlier of the two reasons decides.
    """
    by_ticket = start + (end - start) * spread(_EARLIEST_SHARE, _LATEST_SHARE)
    low, high = _AFTER_ROLLOVER
    by_password = password_due + low + (high - low) * spread(0.0, 1.0)
    return min(by_ticket, by_password)


def retry_delay(failures: int, spread: Spread) -> timedelta:
    """Return how long to wait after `failures` failures in a row: doubling, jittered, bounded."""
    doubled: timedelta = _FIRST_RETRY * (1 << min(failures - 1, 16))
    return min(doubled, _LONGEST_RETRY) * spread(0.5, 1.0)
