"""What a user may have: rates, turns, and answers that say when to come again."""

from __future__ import annotations

import asyncio

import pytest

from credspec.agent.leases.limits import (
    CHANGES_A_SECOND,
    DEFAULT_LEASES,
    LEASES_AT_A_TIME,
    REQUEST_BURST,
    LeaseLimits,
    RequestLimits,
)
from credspec.config.policy import Policy
from credspec.errors import CredspecError, TooManyRequestsError


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_requests_come_back_with_time_and_for_each_user_apart() -> None:
    clock = Clock()
    limits = RequestLimits(clock=clock)
    for _ in range(REQUEST_BURST):
        limits.check(7)
    with pytest.raises(TooManyRequestsError) as caught:
        limits.check(7)
    assert caught.value.code == "requests-too-many"
    assert caught.value.retry_after == 1
    assert caught.value.to_json()["status"] == 429
    assert isinstance(CredspecError.from_json(caught.value.to_json()), TooManyRequestsError)
    limits.check(8)
    clock.now += 1
    limits.check(7)


def test_leases_can_be_made_at_once_as_many_as_there_may_be_and_then_slowly() -> None:
    clock = Clock()
    limits = LeaseLimits(lambda: 10, clock=clock)
    for _ in range(10):
        limits.check_rate(7)
    with pytest.raises(TooManyRequestsError, match="leases-too-often"):
        limits.check_rate(7)
    clock.now += 1
    for _ in range(int(CHANGES_A_SECOND)):
        limits.check_rate(7)
    with pytest.raises(TooManyRequestsError, match="leases-too-often"):
        limits.check_rate(7)


async def test_a_user_has_few_turns_at_a_time_and_takes_none_of_others() -> None:
    limits = LeaseLimits()
    running = most = 0
    go_on = asyncio.Event()

    async def make(user: int) -> None:
        nonlocal running, most
        async with limits.turn(user):
            running += 1
            most = max(most, running)
            await go_on.wait()
            running -= 1

    tasks = [asyncio.create_task(make(7)) for _ in range(3 * LEASES_AT_A_TIME)]
    await asyncio.sleep(0.01)
    assert running == LEASES_AT_A_TIME
    other = asyncio.create_task(make(8))
    await asyncio.sleep(0.01)
    assert running == LEASES_AT_A_TIME + 1
    tasks[-1].cancel()
    go_on.set()
    await asyncio.gather(*tasks, other, return_exceptions=True)
    assert most == LEASES_AT_A_TIME + 1
    assert limits._turns == {}


def test_the_default_of_the_policy_is_the_documented_one() -> None:
    assert Policy().leases_per_user == DEFAULT_LEASES
