"""Rates: how often something may happen, for each of many keys, in bounded memory and any clock.

A `TokenBucket` holds up to `burst` tokens and gains `rate` of them a second. `RateLimits` keeps one
for each key, such as a user id; `Throttle` lets a few reports of each key through and counts the
others, so that a flood of the same thing costs a bounded number of log lines and loses no number.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

_MOST_KEYS: Final = 1024

K = TypeVar("K", bound=Hashable)
Clock = Callable[[], float]
"""Returns seconds that only grow, as `time.monotonic`."""


class TokenBucket:
    """Up to `burst` tokens, `rate` new ones a second; it begins full."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now

    def delay(self, now: float) -> float:
        """Return in how many seconds there is a token; 0 if there is one now."""
        self._fill(now)
        return 0.0 if self._tokens >= 1 else (1 - self._tokens) / self._rate

    def take(self, now: float) -> bool:
        """Take a token if there is one."""
        self._fill(now)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def borrow(self, now: float, count: float = 1) -> float:
        """Take a token, or `count`, in any case; return in how many seconds the first is there."""
        wait = self.delay(now)
        self._tokens -= count
        return wait

    def is_full(self, now: float) -> bool:
        """Return whether nothing would be lost by forgetting it."""
        self._fill(now)
        return self._tokens >= self._burst

    def _fill(self, now: float) -> None:
        # A clock that goes back gives nothing and takes nothing.
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = max(self._at, now)


class RateLimits(Generic[K]):
    """A `TokenBucket` for each key.

    At most `most_keys` are kept. Full ones are forgotten for new keys; if there is none, the keys
    that come on top share one.
    """

    def __init__(
        self,
        rate: float,
        burst: float,
        *,
        clock: Clock = time.monotonic,
        most_keys: int = _MOST_KEYS,
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._most_keys = most_keys
        self._buckets: OrderedDict[K, TokenBucket] = OrderedDict()
        self._shared = TokenBucket(rate, burst, clock())

    def take(self, key: K) -> bool:
        """Take a token of a key if there is one."""
        now = self._clock()
        return self._bucket(key, now).take(now)

    def borrow(self, key: K, count: float = 1) -> float:
        """Take a token of a key, or `count`, in any case; return in how many seconds it is there.

        With more than one it is the first that is waited for; the others are owed.
        """
        now = self._clock()
        return self._bucket(key, now).borrow(now, count)

    def delay(self, key: K) -> float:
        """Return in how many seconds a key has a token."""
        now = self._clock()
        return self._bucket(key, now).delay(now)

    def _bucket(self, key: K, now: float) -> TokenBucket:
        bucket = self._buckets.get(key)
        if bucket is not None:
            self._buckets.move_to_end(key)
            return bucket
        if len(self._buckets) >= self._most_keys:
            oldest, oldest_bucket = next(iter(self._buckets.items()))
            if not oldest_bucket.is_full(now):
                return self._shared
            del self._buckets[oldest]
        bucket = self._buckets[key] = TokenBucket(self._rate, self._burst, now)
        return bucket


@dataclass(frozen=True, slots=True)
class Suppressed(Generic[K]):
    """How many reports of a key were suppressed; `key` is None for all keys on top of the most."""

    key: K | None
    count: int


class Throttle(Generic[K]):
    """Lets `most` reports of a key through in each `seconds`, and counts the others.

    At most `most_keys` keys are told apart in that time; the reports of others are only counted.
    A time begins with the first report after `take_suppressed` ended the one before.
    """

    def __init__(
        self,
        most: int = 5,
        seconds: float = 60.0,
        *,
        clock: Clock = time.monotonic,
        most_keys: int = 64,
    ) -> None:
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self._most_keys = most_keys
        self._counts: dict[K, int] = {}
        self._others = 0
        self._since: float | None = None

    def allows(self, key: K) -> bool:
        """Count a report; return whether it is to be made."""
        if self._since is None:
            self._since = self._clock()
        count = self._counts.get(key, 0)
        if count == 0 and len(self._counts) >= self._most_keys:
            self._others += 1
            return False
        self._counts[key] = count + 1
        return count < self._most

    def remaining(self) -> float | None:
        """Return the seconds until `take_suppressed` has something to return; None for never."""
        if self._since is None:
            return None
        return max(0.0, self._since + self._seconds - self._clock())

    def take_suppressed(self) -> list[Suppressed[K]]:
        """Return what was suppressed and begin again, if the time is over; to be called often."""
        if self.remaining() != 0.0:
            return []
        suppressed: list[Suppressed[K]] = [
            Suppressed(key, count - self._most)
            for key, count in self._counts.items()
            if count > self._most
        ]
        if self._others:
            suppressed.append(Suppressed(None, self._others))
        self._counts.clear()
        self._others = 0
        self._since = None
        return suppressed
