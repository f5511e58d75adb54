"""Rates of many keys, with a clock that the test turns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.rate_limit import RateLimits, Suppressed, Throttle, TokenBucket

KEYS = st.integers(0, 5)
STEPS = st.floats(0, 30, allow_nan=False)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(STEPS, max_size=50), st.floats(0.1, 100), st.integers(1, 20))
def test_a_bucket_gives_no_more_than_its_burst_and_its_rate(
    steps: list[float], rate: float, burst: int
) -> None:
    clock, bucket, taken = Clock(), TokenBucket(rate, burst, 1000.0), 0
    for step in steps:
        clock.now += step
        while bucket.take(clock.now):
            taken += 1
        assert taken <= burst + rate * (clock.now - 1000) + 1e-3
        assert 0 < bucket.delay(clock.now) <= 1 / rate + 1e-6


def test_what_is_borrowed_comes_due_at_the_rate() -> None:
    bucket = TokenBucket(2.0, 1, 0.0)
    assert [bucket.borrow(0.0) for _ in range(4)] == [0.0, 0.5, 1.0, 1.5]
    assert bucket.borrow(10.0) == 0.0


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(1.0, 1, 100.0)
    assert bucket.take(100.0)
    assert not bucket.take(50.0)
    assert not bucket.take(100.5)
    assert bucket.take(101.1)


def test_keys_do_not_take_from_each_other() -> None:
    clock = Clock()
    limits: RateLimits[int] = RateLimits(1.0, 3, clock=clock)
    assert [limits.take(1) for _ in range(5)] == [True, True, True, False, False]
    assert limits.take(2)
    assert limits.delay(1) > 0
    clock.now += 1
    assert limits.take(1)


@given(st.lists(st.tuples(st.integers(0, 100), STEPS), max_size=200))
def test_however_many_keys_there_are_few_are_kept(events: list[tuple[int, float]]) -> None:
    clock = Clock()
    limits: RateLimits[int] = RateLimits(1.0, 2, clock=clock, most_keys=4)
    for key, step in events:
        clock.now += step
        limits.take(key)
        assert len(limits._buckets) <= 4


def test_keys_on_top_of_the_most_share_one_bucket() -> None:
    limits: RateLimits[int] = RateLimits(1.0, 2, clock=Clock(), most_keys=2)
    assert all(limits.take(key) for key in (1, 2))
    assert [limits.take(key) for key in (3, 4, 5)] == [True, True, False]
    assert limits.take(1)


@given(st.lists(st.tuples(KEYS, STEPS), max_size=300))
def test_a_throttle_bounds_reports_and_loses_no_number(events: list[tuple[int, float]]) -> None:
    clock = Clock()
    throttle: Throttle[int] = Throttle(2, 60.0, clock=clock, most_keys=3)
    reported = 0
    for key, step in events:
        clock.now += step
        reported += sum(each.count for each in throttle.take_suppressed())
        reported += throttle.allows(key)
    clock.now += 60
    reported += sum(each.count for each in throttle.take_suppressed())
    assert reported == len(events)
    assert throttle.remaining() is None


@given(st.integers(1, 500), st.integers(1, 400))
def test_a_flood_is_reported_a_bounded_number_of_times(keys: int, times: int) -> None:
    throttle: Throttle[int] = Throttle(2, 60.0, clock=Clock(), most_keys=10)
    made = sum(throttle.allows(key) for key in range(keys) for _ in range(min(times, 20)))
    assert made <= 2 * 10


def test_what_was_suppressed_is_told_when_its_time_is_over() -> None:
    clock = Clock()
    throttle: Throttle[str] = Throttle(1, 60.0, clock=clock, most_keys=1)
    assert throttle.allows("a")
    assert not throttle.allows("a")
    assert not throttle.allows("b")
    clock.now += 59
    assert throttle.remaining() == 1
    assert throttle.take_suppressed() == []
    clock.now += 1
    assert throttle.take_suppressed() == [Suppressed("a", 1), Suppressed(None, 1)]
    assert throttle.allows("b")


def test_several_tokens_at_once_are_owed() -> None:
    clock = Clock()
    limits: RateLimits[str] = RateLimits(10.0, 5, clock=clock)
    assert limits.borrow("a", 25) == 0.0
    assert limits.delay("a") == pytest.approx(2.1)
    assert limits.borrow("b") == 0.0
    clock.now += 2.1
    assert limits.borrow("a") == pytest.approx(0.0)
