"""How much input tests generate: all of it with ``make test``, a part with ``make unit``.

Every test runs in both; ``--hypothesis-profile=quick`` chooses the part.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

QUICK_EXAMPLES = 15
QUICK_SHARE = 50

# How long an example takes says more about the machine than about the code. Where nobody has the
# example database afterwards, a failure says how to have it again.


def keeps_examples(directory: Path) -> bool:
    """Whether failing examples can be kept there: the tree may be another user's."""
    there = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    return there.is_dir() and os.access(there, os.R_OK | os.W_OK | os.X_OK)


ci = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
if not keeps_examples(Path(".hypothesis/examples")):
    ci = settings(ci, database=None)
settings.register_profile("ci", ci)
settings.register_profile("quick", ci, max_examples=QUICK_EXAMPLES)
# The same few examples for each changed line (make mutate).
settings.register_profile("mutation", ci, max_examples=40, derandomize=True, database=None)
settings.load_profile("ci")


def is_quick() -> bool:
    """Return whether a part is wanted."""
    return settings.default is not None and settings.default.max_examples == QUICK_EXAMPLES


def share_of(count: int) -> int:
    """Return how many of `count` inputs a test that makes them itself should try."""
    return count // QUICK_SHARE if is_quick() else count


def limit_examples(items: list[pytest.Item]) -> None:
    """With the quick profile, limit tests too that choose a number of examples themselves."""
    for item in items if is_quick() else ():
        function = getattr(item, "obj", None)
        # Where hypothesis keeps the settings of one test.
        own = getattr(function, "_hypothesis_internal_use_settings", None)
        if own is not None and own.max_examples > QUICK_EXAMPLES:
            limited = settings(own, max_examples=QUICK_EXAMPLES)
            target = getattr(function, "__func__", function)
            target._hypothesis_internal_use_settings = limited  # type: ignore[union-attr]
