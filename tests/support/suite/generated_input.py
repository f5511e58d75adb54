"""How much input tests generate: a little with ``make unit``, more with ``make test``.

Every test runs with each profile, and with other input each time; ``make unit INPUT=all`` has all
that the tests ask for.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

QUICK_EXAMPLES, QUICK_SHARE = 15, 50
USUAL_EXAMPLES, MOST_USUAL_EXAMPLES, USUAL_SHARE = 50, 250, 10

# How long an example takes says more about the machine than about the code. Where nobody has the
# example database afterwards, a failure says how to have it again.


def keeps_examples(directory: Path) -> bool:
    """Whether failing examples can be kept there: the tree may be another user's."""
    there = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    return there.is_dir() and os.access(there, os.R_OK | os.W_OK | os.X_OK)


every = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
if not keeps_examples(Path(".hypothesis/examples")):
    every = settings(every, database=None)
settings.register_profile("all", every)
settings.register_profile("usual", every, max_examples=USUAL_EXAMPLES)
settings.register_profile("quick", every, max_examples=QUICK_EXAMPLES)
# The same few examples for each changed line (make mutate).
settings.register_profile("mutation", every, max_examples=40, derandomize=True, database=None)
settings.load_profile("usual")


def _limits() -> tuple[int | None, int]:
    """Return the most examples of a test that chooses, and the divisor of other input."""
    usual = settings.default.max_examples if settings.default is not None else 0
    if usual == QUICK_EXAMPLES:
        return QUICK_EXAMPLES, QUICK_SHARE
    return (MOST_USUAL_EXAMPLES, USUAL_SHARE) if usual == USUAL_EXAMPLES else (None, 1)


def share_of(count: int) -> int:
    """Return how many of `count` inputs a test that makes them itself should try."""
    return count // _limits()[1]


def limit_examples(items: list[pytest.Item]) -> None:
    """Limit tests too that choose a number of examples themselves."""
    most, _ = _limits()
    for item in items if most is not None else ():
        function = getattr(item, "obj", None)
        # Where hypothesis keeps the settings of one test.
        own = getattr(function, "_hypothesis_internal_use_settings", None)
        if own is not None and own.max_examples > most:
            limited = settings(own, max_examples=most)
            target = getattr(function, "__func__", function)
            target._hypothesis_internal_use_settings = limited  # type: ignore[union-attr]
