"""Examining again until all is well or the time is over, for scripts that run at boot."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

from credspec.doctor.step import StepResult
from credspec.errors import ExitStatus

# What waiting does not fix.
_FINAL: Final = frozenset({ExitStatus.USAGE, ExitStatus.INVALID_SPEC})
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 10.0


def first_cause(results: list[StepResult]) -> StepResult | None:
    """Return the first step that failed, None if all is well."""
    return next((result for result in results if result.exit_status), None)


def examine_until_well(
    examine: Callable[[], list[StepResult]],
    seconds: float,
    *,
    report: Callable[[StepResult, float], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    chance: Callable[[float, float], float] = random.uniform,
) -> list[StepResult]:
    """Examine until nothing fails, or for `seconds`; return what the last examination found.

    An invalid spec ends it at once. `report` is called before each pause with the first cause and
    the seconds that are left. Pauses grow from one to ten seconds, with jitter, since all hosts of
    a site may boot at the same moment. At least one examination is made, and the last one may end
    after the time is over.
    """
    end = clock() + seconds
    pause = _FIRST_PAUSE
    while True:
        results = examine()
        first = first_cause(results)
        left = end - clock()
        if first is None or first.exit_status in _FINAL or left <= 0:
            return results
        report(first, left)
        sleep(min(left, chance(pause / 2, pause)))
        pause = min(2 * pause, _LONGEST_PAUSE)
