"""The scheduler with a virtual clock: single rules, and whole weeks of a thousand identities."""

from __future__ import annotations

import random
from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from credspec.agent.identities.refresh_schedule import RefreshSchedule, retry_delay
from credspec.kerberos.ticket_life import is_fit_to_give
from support.agent.fleet_simulation import LIFE, START, simulate

NOW = START
shares = st.floats(0, 1)
lives = st.timedeltas(timedelta(minutes=10), timedelta(days=7))


def between(share: float):  # a spread that picks one share of the way
    return lambda low, high: low + (high - low) * share


@given(shares, lives)
def test_a_ticket_is_replaced_with_more_than_a_quarter_left(share: float, life: timedelta) -> None:
    schedule: RefreshSchedule[str] = RefreshSchedule(between(share))
    schedule.add("a", start=NOW, end=NOW + life, now=NOW)
    first = schedule.planned("a")
    assert first is not None
    assert NOW < first < NOW + life * 0.75
    assert schedule.due(first) == ["a"]
    assert schedule.planned("a") is None
    schedule.succeeded("a", start=first, end=first + life, now=first)
    second = schedule.planned("a")
    assert second is not None
    assert first + life * 0.4 < second < first + life * 0.75


@given(shares, lives, shares)
def test_what_is_adopted_late_is_not_late(share: float, life: timedelta, age: float) -> None:
    schedule: RefreshSchedule[str] = RefreshSchedule(between(share))
    now = NOW + life * age
    schedule.add("a", start=NOW, end=NOW + life, now=now)
    planned = schedule.planned("a")
    assert planned is not None
    assert now <= planned <= max(NOW + life * 0.75, now + life * 0.03)


def test_a_ticket_that_is_missing_comes_at_once() -> None:
    schedule: RefreshSchedule[str] = RefreshSchedule(between(0.5))
    schedule.add("a", start=NOW, end=NOW + LIFE, now=NOW)
    assert schedule.due(NOW) == []
    schedule.hasten("a", NOW)
    assert schedule.due(NOW) == ["a"]
    assert schedule.due(NOW) == []  # it is under way


def test_what_is_removed_never_comes() -> None:
    schedule: RefreshSchedule[str] = RefreshSchedule(between(0.5))
    schedule.add("a", start=NOW, end=NOW + LIFE, now=NOW)
    schedule.remove("a")
    schedule.remove("b")
    assert schedule.next_time() is None
    schedule.succeeded("a", start=NOW, end=NOW + LIFE, now=NOW)
    schedule.failed("a", NOW, unreachable=False)
    assert schedule.next_time() is None


def test_an_outage_is_one_retry_for_all() -> None:
    schedule: RefreshSchedule[int] = RefreshSchedule(between(0.5))
    for number in range(20):
        schedule.add(number, start=NOW, end=NOW + LIFE, now=NOW)
    now = NOW + LIFE * 0.6
    under_way = schedule.due(now)
    assert len(under_way) == 20
    for number in under_way:
        schedule.failed(number, now, unreachable=True)
    assert schedule.outage_since == now
    tries = []
    for _ in range(12):
        when = schedule.next_time()
        assert when is not None
        assert when > now
        tries.append((when - now).total_seconds())
        now = when
        (probe,) = schedule.due(now)
        assert schedule.due(now) == []
        assert schedule.next_time() is None
        schedule.failed(probe, now, unreachable=True)
    assert tries[:4] == [3.75, 7.5, 15.0, 30.0]
    assert max(tries) <= 300
    schedule.reached(now)
    assert schedule.outage_since is None
    planned = [schedule.planned(number) for number in range(20)]
    assert all(when is not None and when >= now for when in planned)
    assert len(set(planned)) == 20


def test_a_probe_that_is_released_leaves_its_place_to_another() -> None:
    schedule: RefreshSchedule[str] = RefreshSchedule(between(0.5))
    for name in ("a", "b"):
        schedule.add(name, start=NOW, end=NOW + LIFE, now=NOW)
    now = NOW + LIFE * 0.6
    for name in schedule.due(now):
        schedule.failed(name, now, unreachable=True)
    now += timedelta(minutes=1)
    (probe,) = schedule.due(now)
    schedule.remove(probe)
    assert schedule.due(now) == [({"a", "b"} - {probe}).pop()]


def test_a_refusal_is_the_accounts_own() -> None:
    schedule: RefreshSchedule[str] = RefreshSchedule(between(0.5))
    for name in ("a", "b"):
        schedule.add(name, start=NOW, end=NOW + LIFE, now=NOW)
    now = NOW + LIFE * 0.6
    schedule.due(now)
    delays = []
    for _ in range(14):
        schedule.failed("a", now, unreachable=False)
        when = schedule.planned("a")
        assert when is not None
        delays.append((when - now).total_seconds())
        assert schedule.due(when) == ["a"]
    assert schedule.outage_since is None
    assert delays == sorted(delays)
    assert delays[0] == pytest.approx(3.75)
    assert delays[-1] == pytest.approx(22.5 * 60)


@given(st.integers(1, 40), shares)
def test_a_success_makes_up_for_all_failures_before_it(failures: int, share: float) -> None:
    schedule: RefreshSchedule[str] = RefreshSchedule(between(share))
    schedule.add("a", start=NOW, end=NOW + LIFE, now=NOW)

    def fail() -> timedelta:
        now = schedule.planned("a")
        assert now is not None
        assert schedule.due(now) == ["a"]
        schedule.failed("a", now, unreachable=False)
        when = schedule.planned("a")
        assert when is not None
        return when - now

    first = fail()
    for _ in range(failures):
        fail()
    now = schedule.planned("a")
    assert now is not None
    schedule.due(now)
    schedule.succeeded("a", start=now, end=now + LIFE, now=now)
    assert fail() == first


@given(st.integers(1, 10_000), shares)
def test_retries_back_off_and_stay_bounded(failures: int, share: float) -> None:
    longest = timedelta(minutes=10)
    delay = retry_delay(failures, between(share), longest)
    assert timedelta(seconds=2.5) <= delay <= longest
    assert delay <= retry_delay(failures + 1, between(share), longest)


def test_a_thousand_identities_are_a_steady_load() -> None:
    days = 3
    run = simulate(1, 1000, timedelta(days=days))
    mean = run.attempts.total() / (days * 1440)
    assert run.peak(range(days * 1440)) <= 1.5 * mean
    assert run.least_left > 0.25


def test_an_hour_without_controllers_is_made_up_for_without_a_storm() -> None:
    down = timedelta(hours=30), timedelta(hours=31)
    run = simulate(1, 1000, timedelta(days=2), down=down)
    mean = run.attempts.total() / (2 * 1440)
    assert run.peak(range(31 * 60, 2 * 1440)) <= 3 * mean
    assert sum(run.attempts[minute] for minute in range(30 * 60 + 1, 31 * 60)) < 30
    assert run.least_left > 0.25


def test_a_day_without_controllers_ends_in_minutes_and_not_in_one() -> None:
    down = timedelta(hours=24), timedelta(hours=48)
    run = simulate(1, 1000, timedelta(days=3), down=down)
    back = range(48 * 60, 48 * 60 + 20)
    assert sum(run.attempts[minute] for minute in back) >= 1000
    assert run.peak(back) <= 150


def test_a_fleet_is_a_steady_load() -> None:
    run = simulate(200, 20, timedelta(days=2))
    # In tenths of an hour: a minute's count would be noise here.
    tenths = Counter(minute // 6 for minute in run.attempts.elements())
    mean = run.attempts.total() / (2 * 240)
    assert max(tenths.values()) <= 1.5 * mean


offsets = st.timedeltas(timedelta(days=-3), timedelta(days=3))


@given(st.lists(st.tuples(shares, lives), min_size=1, max_size=30), offsets, shares)
@example([(0.0, timedelta(hours=96.5))], timedelta(hours=72), 0.5)
def test_a_clock_that_is_set_leaves_no_ticket_behind(
    tickets: list[tuple[float, timedelta]], jump: timedelta, share: float
) -> None:
    """What cannot be given any more is replaced soon, the rest with a quarter left."""
    schedule: RefreshSchedule[int] = RefreshSchedule(between(share))
    spans = {}
    for number, (age, life) in enumerate(tickets):
        start = NOW - life * age * 0.7
        spans[number] = start, start + life
        schedule.add(number, start=start, end=start + life, now=NOW)
    now = NOW + jump
    schedule.plan_again(now)
    unfit = {number for number, span in spans.items() if not is_fit_to_give(*span, now)}
    late = {number for number, (start, end) in spans.items() if now >= start + (end - start) * 0.74}
    soon = max(timedelta(seconds=10), timedelta(seconds=0.6) * len(unfit | late))
    for number, (start, end) in spans.items():
        planned = schedule.planned(number)
        assert planned is not None
        if number in unfit | late:
            assert now <= planned <= now + soon
        else:
            assert planned <= start + (end - start) * 0.75


def test_many_that_have_ended_are_replaced_in_turn() -> None:
    chance = random.Random(1)
    schedule: RefreshSchedule[int] = RefreshSchedule(chance.uniform)
    for number in range(1000):
        schedule.add(number, start=NOW, end=NOW + LIFE, now=NOW)
    now = NOW + timedelta(hours=11)
    schedule.plan_again(now)
    planned = [schedule.planned(number) for number in range(1000)]
    minutes = Counter(int((when - now).total_seconds()) // 60 for when in planned if when)
    assert max(minutes) <= 10
    assert max(minutes.values()) <= 150


@given(st.timedeltas(timedelta(days=-3), timedelta(days=3)), shares)
def test_an_outage_is_probed_in_time_whatever_the_clock_did(jump: timedelta, share: float) -> None:
    schedule: RefreshSchedule[int] = RefreshSchedule(between(share))
    for number in range(3):
        schedule.add(number, start=NOW, end=NOW + LIFE, now=NOW)
    begin = NOW + LIFE * 0.6
    for number in schedule.due(begin):
        schedule.failed(number, begin, unreachable=True)
    now = begin + jump
    schedule.plan_again(now)
    assert schedule.outage_since is not None
    assert schedule.outage_since <= now
    unfit = not is_fit_to_give(NOW, NOW + LIFE, now)
    when = schedule.next_time()
    assert when is not None
    if unfit:
        assert when <= now + timedelta(minutes=5)
        probe = schedule.due(max(now, when))
        assert len(probe) == 1


@given(st.timedeltas(timedelta(days=-3), timedelta()))
def test_a_refusal_is_tried_again_in_time_after_the_clock_was_set_back(jump: timedelta) -> None:
    schedule: RefreshSchedule[str] = RefreshSchedule(between(1.0))
    schedule.add("a", start=NOW - timedelta(days=4), end=NOW + timedelta(days=4), now=NOW)
    for _ in range(20):
        schedule.failed("a", NOW, unreachable=False)
    schedule.plan_again(NOW + jump)
    planned = schedule.planned("a")
    assert planned is not None
    assert planned <= NOW + jump + timedelta(minutes=30)


def test_tickets_that_are_never_good_are_not_asked_for_without_pause() -> None:
    """By a clock that is ahead by more than half of the tickets' life."""
    schedule: RefreshSchedule[str] = RefreshSchedule(between(0.0))
    life, now = timedelta(minutes=4), NOW + timedelta(minutes=4.5)
    schedule.add("a", start=NOW, end=NOW + life, now=now)
    schedule.succeeded("a", start=NOW, end=NOW + life, now=now)
    planned = schedule.planned("a")
    assert planned is not None
    assert planned >= now + timedelta(seconds=4)


@given(st.lists(st.sampled_from(["down", "refused", "got", "set", "due"]), max_size=40))
def test_no_plan_is_counted_twice(steps: list[str]) -> None:
    """Else minutes would seem to be taken that are free, for as long as the agent runs."""
    schedule: RefreshSchedule[int] = RefreshSchedule(between(0.5))
    now = NOW
    for number in range(3):
        schedule.add(number, start=NOW, end=NOW + LIFE, now=NOW)
    for turn, step in enumerate(steps):
        number = turn % 3
        now += timedelta(minutes=7)
        if step == "due":
            schedule.due(now)
        elif step == "set":
            now += timedelta(hours=5) * (-1) ** turn
            schedule.plan_again(now)
        elif step == "got":
            schedule.succeeded(number, start=now, end=now + LIFE, now=now)
        else:
            schedule.failed(number, now, unreachable=step == "down")
    planned = sum(entry.due is not None for entry in schedule._entries.values())
    assert sum(schedule._slots.values()) == planned
