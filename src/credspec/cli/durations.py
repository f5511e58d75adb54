"""Durations as people write them: ``90s``, ``2m``, ``1h30m``."""

from __future__ import annotations

import re
from typing import Any, Final

import click

_FORM: Final = re.compile(r"(?=\d)(?:(\d{1,4})h)?(?:(\d{1,5})m)?(?:(\d{1,6})s?)?", re.ASCII)
_MOST: Final = 24 * 3600


class Duration(click.ParamType[float]):
    """A duration in seconds, written as hours, minutes and seconds, at most a day."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds."""
        if isinstance(value, float):
            return value
        found = _FORM.fullmatch(str(value).strip())
        hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0,) * 3
        total = 3600 * hours + 60 * minutes + seconds
        if found is None or total > _MOST:
            self.fail(f"{str(value)[:40]!r} is no duration such as 90s, 2m or 1h30m", param, ctx)
        return float(total)
