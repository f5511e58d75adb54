"""What one unprivileged user may have of the agent: leases, changes of leases, turns at a time.

Root and the host's own engines have no limits here.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from credspec.agent.leases.record import LeaseRecord
from credspec.errors import QuotaExceededError, TooManyRequestsError
from credspec.rate_limit import Clock, RateLimits

DEFAULT_LEASES: Final = 256
"""How many leases a user may have, unless `leases_per_user` says otherwise."""

REQUESTS_A_SECOND: Final = 20.0
"""How many requests a user may make for long; `REQUEST_BURST` at once."""

REQUEST_BURST: Final = 500
CHANGES_A_SECOND: Final = 5.0
"""How many leases a user may make for long; as many as it may have at once."""

LEASES_AT_A_TIME: Final = 16
"""How many leases of one user are made at a time; others wait for their turn."""

_RETRY_FULL_SECONDS: Final = 30


@dataclass(slots=True)
class _Turns:
    free: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LEASES_AT_A_TIME))
    users: int = 0


class RequestLimits:
    """Limits how many requests a user makes."""

    def __init__(self, *, clock: Clock = time.monotonic) -> None:
        self._rates: RateLimits[int] = RateLimits(REQUESTS_A_SECOND, REQUEST_BURST, clock=clock)

    def check(self, user: int) -> None:
        """Count a request.

        Raises:
            TooManyRequestsError: `requests-too-many`.
        """
        if not self._rates.take(user):
            raise _too_often("requests-too-many", "requests", user, self._rates.delay(user))


class LeaseLimits:
    """Limits what leases a user makes; `most` returns how many it may have now."""

    def __init__(
        self, most: Callable[[], int] = lambda: DEFAULT_LEASES, *, clock: Clock = time.monotonic
    ) -> None:
        self._most = most
        self._changes: RateLimits[int] = RateLimits(CHANGES_A_SECOND, max(1, most()), clock=clock)
        self._turns: dict[int, _Turns] = {}

    def check_rate(self, user: int) -> None:
        """Count a lease that is to be made.

        Raises:
            TooManyRequestsError: `leases-too-often`.
        """
        if not self._changes.take(user):
            raise _too_often("leases-too-often", "new leases", user, self._changes.delay(user))

    def check_number(self, user: int, records: Iterable[LeaseRecord]) -> None:
        """Refuse a lease on top of those that a user may have.

        Raises:
            TooManyRequestsError: `leases-too-many`.
        """
        most = self._most()
        if sum(record.user == user for record in records) < most:
            return
        error = QuotaExceededError.of(
            "leases-too-many",
            f"user {user} has {most} leases",
            where="lease",
            expected="fewer at a time",
            remedy="remove containers, or raise leases_per_user under [policy] in the "
            "configuration",
        )
        error.retry_after = _RETRY_FULL_SECONDS
        raise error

    @asynccontextmanager
    async def turn(self, user: int) -> AsyncIterator[None]:
        """Wait until few enough of a user's leases are being made, while the block runs."""
        turns = self._turns.setdefault(user, _Turns())
        turns.users += 1
        try:
            async with turns.free:
                yield
        finally:
            turns.users -= 1
            if not turns.users:
                del self._turns[user]


def _too_often(code: str, what: str, user: int, delay: float) -> TooManyRequestsError:
    error = TooManyRequestsError.of(
        code, f"too many {what} of user {user}", where="agent", remedy="wait, then try again"
    )
    error.retry_after = max(1, math.ceil(delay))
    return error
