"""Where `make install` puts the runtimes and programs of the applications' tests."""

from __future__ import annotations

from pathlib import Path
from typing import Final

RUNTIMES: Final = Path(__file__).parents[3] / ".venv/applications"
