"""When a ticket may be given to a container, and when it is used no longer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.kerberos.ticket_life import CLOCK_SKEW, is_fit_to_give, lasts, state_of

START = datetime(2026, 1, 1, tzinfo=UTC)
lives = st.timedeltas(timedelta(minutes=1), timedelta(days=7))
moments = st.timedeltas(timedelta(days=-30), timedelta(days=30))


@given(lives, moments)
def test_what_may_be_given_is_good_now_and_for_a_quarter_of_its_life(
    life: timedelta, offset: timedelta
) -> None:
    now, end = START + offset, START + life
    expected = offset >= -CLOCK_SKEW and end - now > life / 4
    assert is_fit_to_give(START, end, now) is expected


@given(lives, moments, st.timedeltas(timedelta(), timedelta(hours=1)))
def test_what_lasts_is_good_now(life: timedelta, offset: timedelta, least: timedelta) -> None:
    now, end = START + offset, START + life
    if lasts(START, end, now, least):
        assert -offset <= CLOCK_SKEW
        assert end - now >= min(least, life / 4)
    # A ticket that was just made can be used, however short its life is.
    assert lasts(START, end, START, least)


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (timedelta(hours=11), "ended 1 h 0 min ago"),
        (timedelta(hours=-5), "starts 5 h 0 min from now"),
        (timedelta(hours=9, minutes=59, seconds=30), "is 9 h 59 min old and ends in 30 s"),
        (timedelta(hours=9, minutes=57, seconds=30), "is 9 h 57 min old and ends in 2 min 30 s"),
        (timedelta(days=3), "ended 2 d 14 h ago"),
        (timedelta(minutes=-1), "is 0 s old and ends in 10 h 1 min"),
    ],
)
def test_how_old_it_is_in_words(now: timedelta, words: str) -> None:
    assert state_of(START, START + timedelta(hours=10), START + now) == words
