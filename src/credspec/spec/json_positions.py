"""Where in a JSON text a value is: JSON pointer (RFC 6901) to line and column."""

from __future__ import annotations

import json
import re
from typing import Final

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_SCALAR: Final = re.compile(r"[^\s,\]}]+")


def positions(text: str) -> dict[str, tuple[int, int]]:
    """Return the place of every member's key and of every element, by JSON pointer.

    Lines and columns count from 1. Of a repeated key the last one counts. The text need not be
    valid: what stands before the first error has places, the rest has none. The whole document is
    under the empty pointer.
    """
    found: dict[str, tuple[int, int]] = {"": _place(text, _skip(text, 0))}
    # A walk without recursion: each level is its pointer and the number of the next element.
    levels: list[tuple[str, int | None]] = []
    at = _skip(text, 0)
    pointer = ""
    while at < len(text):
        character = text[at]
        if character in "{[":
            levels.append((pointer, 0 if character == "[" else None))
            at = _skip(text, at + 1)
        elif character in "}]":
            if not levels:
                break
            levels.pop()
            at = _skip(text, at + 1)
            continue
        elif character == ",":
            at = _skip(text, at + 1)
        else:
            scalar = _STRING.match(text, at) or _SCALAR.match(text, at)
            if scalar is None or not levels:
                break
            at = _skip(text, scalar.end())
            continue
        if at >= len(text) or not levels or text[at] in "}]":
            continue
        step = _member(text, at, levels)
        if step is None:
            break
        pointer, begin, at = step
        found[pointer] = _place(text, begin)
    return found


def _member(
    text: str, at: int, levels: list[tuple[str, int | None]]
) -> tuple[str, int, int] | None:
    """Return the pointer of the member that begins here, its place, and where its value begins."""
    parent, number = levels[-1]
    if number is not None:
        levels[-1] = (parent, number + 1)
        return f"{parent}/{number}", at, at
    key = _STRING.match(text, at)
    if key is None:
        return None
    colon = _skip(text, key.end())
    if text[colon : colon + 1] != ":":
        return None
    try:
        name = str(json.loads(key[0], strict=False))
    except ValueError:
        return None
    escaped = name.replace("~", "~0").replace("/", "~1")
    return f"{parent}/{escaped}", at, _skip(text, colon + 1)


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _place(text: str, at: int) -> tuple[int, int]:
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
