"""What this process has open, where other tests' threads may open and close things meanwhile."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def opened_below(directory: Path) -> list[str]:
    """Return the paths at or below a directory that this process has open, one for each."""
    found = []
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names only, which may go meanwhile
        with suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{number}"))  # noqa: PTH115
    return sorted(path for path in found if Path(path).is_relative_to(directory))
