"""Text from elsewhere for a terminal: nothing in it moves the cursor or forges a line."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return a text with ``?`` for control characters and for bytes that are no text."""
    return "".join(c if c.isprintable() else "?" for c in text)
