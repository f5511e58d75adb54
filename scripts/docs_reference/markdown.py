"""Markdown of generated pages."""

from __future__ import annotations

import re
import textwrap

WIDTH = 110


def escaped(text: str) -> str:
    """Escape what Markdown would read in texts; what is in backquotes stays."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([\\*_<>|\[\]])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def wrapped(text: str, indent: str = "") -> str:
    """Break lines; those after the first begin with `indent`."""
    lines = textwrap.wrap(
        text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines)
