"""Starts of containers that wait for a moment instead of half a minute, where nothing will come."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS = 1.0


@contextmanager
def short_start_waits(*launchers: Path) -> Iterator[None]:
    """Let launchers of the shim or of hooks wait for agent and domain only a second meanwhile."""
    before = {launcher: launcher.read_text() for launcher in launchers}
    try:
        for launcher, text in before.items():
            short, number = re.subn(r"wait_seconds=[0-9.]+", f"wait_seconds={SECONDS}", text)
            assert number == 1, launcher
            launcher.write_text(short)
        yield
    finally:
        for launcher, text in before.items():
            launcher.write_text(text)
