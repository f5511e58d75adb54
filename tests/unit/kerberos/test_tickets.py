"""A ticket that no service would accept yet is refused: only libkrb5 corrects for a clock."""

from __future__ import annotations

import pytest

from credspec.errors import ClockRefusalError
from credspec.kerberos import tickets

NOW = 1_800_000_000


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: float(NOW))


@pytest.mark.parametrize(("ahead", "direction"), [(301, "behind"), (-301, "ahead of")])
def test_a_clock_that_differs_is_named_and_may_be_right_the_next_time(
    ahead: int, direction: str
) -> None:
    with pytest.raises(ClockRefusalError, match=rf"301 s {direction} it.*kdc-clock-skew"):
        tickets._check_clock("HOST$@EXAMPLE.TEST", NOW + ahead)


@pytest.mark.parametrize("ahead", [300, 0, -300])
def test_a_clock_that_differs_by_five_minutes_at_most_is_fine(ahead: int) -> None:
    tickets._check_clock("HOST$@EXAMPLE.TEST", NOW + ahead)
