"""A ticket that no service would accept yet is refused: only libkrb5 corrects for a clock."""

from __future__ import annotations

import time

import pytest

from credspec.errors import ClockRefusalError
from credspec.kerberos.tickets import _check_clock


@pytest.mark.parametrize(("ahead", "direction"), [(400, "behind"), (-400, "ahead of")])
def test_a_clock_that_differs_is_named_and_may_be_right_the_next_time(
    ahead: int, direction: str
) -> None:
    with pytest.raises(ClockRefusalError, match=rf"(399|400) s {direction} it.*kdc-clock-skew"):
        _check_clock("HOST$@EXAMPLE.TEST", int(time.time()) + ahead)


@pytest.mark.parametrize("ahead", [200, 0, -200])
def test_a_clock_that_differs_a_little_is_fine(ahead: int) -> None:
    _check_clock("HOST$@EXAMPLE.TEST", int(time.time()) + ahead)
