"""How examples stand in the help of every command."""

from __future__ import annotations


def examples(*commands: str) -> str:
    """Return the end of a help text: commands that can be typed as they stand, a line each."""
    lines = "".join(f"\n  {command}" for command in commands)
    # click does not wrap the lines of a paragraph that begins with a backspace.
    return f"\b\nExamples:{lines}"
