from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from credspec.agent.refresh_time import refresh_time, retry_delay

NOW = datetime(2026, 1, 1, tzinfo=UTC)
shares = st.floats(0, 1)


def between(share: float):  # a spread that picks one share of the way
    return lambda low, high: low + (high - low) * share


@given(shares, st.timedeltas(timedelta(minutes=10), timedelta(days=7)))
def test_a_ticket_is_replaced_with_more_than_a_quarter_left(share: float, life: timedelta) -> None:
    when = refresh_time(
        start=NOW, end=NOW + life, password_due=NOW + timedelta(days=99), spread=between(share)
    )
    assert NOW + life * 0.5 <= when
    assert NOW + life - when > life / 4


@given(shares, st.timedeltas(timedelta(0), timedelta(hours=4)))
def test_a_rollover_comes_first_and_is_awaited(share: float, due: timedelta) -> None:
    when = refresh_time(
        start=NOW, end=NOW + timedelta(hours=10), password_due=NOW + due, spread=between(share)
    )
    assert timedelta(seconds=5) <= when - (NOW + due) <= timedelta(minutes=1)


@given(st.integers(1, 10_000), shares)
def test_retries_back_off_and_stay_bounded(failures: int, share: float) -> None:
    delay = retry_delay(failures, between(share))
    assert timedelta(seconds=2.5) <= delay <= timedelta(minutes=10)
    assert delay <= retry_delay(failures + 1, between(share))
