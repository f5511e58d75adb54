"""JSON read strictly: what other readers would silently drop or change is an error here.

Two steps, so that every problem gets its place: `parse_json` reads the text and keeps what is
doubtful, `unsound_values` walks the result and names each doubtful value by its JSON pointer.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any, Final

from credspec.errors import InvalidSpecError, Problem

MAX_DEPTH: Final = 64
"""Levels of objects and arrays; a credential spec needs four."""

MAX_VALUES: Final = 1000
"""Values in a document, at most; a credential spec of a hundred accounts has some three hundred."""

# What a double can hold: the JSON readers of other platforms hold no larger numbers.
_MAX_INTEGER_BITS: Final = 1024
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_SPACE: Final = re.compile(r"[ \t\r\n]*")


class RepeatedKeyProblem(Problem):
    """A key appears more than once in an object, of which one value is kept."""

    __slots__ = ()


class _RepeatedKeys(dict[str, Any]):
    """An object in which keys appear more than once; the last value of each counts."""

    repeated: tuple[str, ...] = ()


def parse_json(text: str) -> Any:
    """Return the JSON value that `text` holds.

    Repeated keys and numbers that JSON cannot hold are kept for `unsound_values` to report.

    Raises:
        InvalidSpecError: ``spec-not-json`` with line and column, ``spec-comment`` or
            ``spec-too-deep``.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_int=_integer)
    except json.JSONDecodeError as error:
        failure = _syntax_error(text, error)
    except RecursionError:
        failure = InvalidSpecError(_too_deep(""))
    # Not in the handler: the decoder's error holds the whole text, which may have a password.
    try:
        raise failure
    finally:
        del failure  # else it and this frame, with the text, would hold each other


def unsound_values(document: Any) -> tuple[Any, list[Problem]]:
    """Return a copy that any JSON library can hold, and what had to be replaced for that.

    Problems are ``spec-duplicate-key``, ``spec-lone-surrogate``, ``spec-number-range``,
    ``spec-too-deep`` and, for Python values that are not JSON, ``spec-wrong-type``.
    """
    problems: list[Problem] = []
    return _sound(document, "", 1, problems), problems


def has_more_values(document: Any, most: int) -> bool:
    """Return whether a document holds more than `most` values; it looks at few more than that."""
    waiting, count = [document], 1
    while waiting and count <= most:
        value = waiting.pop()
        if isinstance(value, dict | list | tuple):
            count += len(value)
            if count <= most:
                waiting += value.values() if isinstance(value, dict) else value
    return count > most


def pointer_to(parent: str, token: str | int) -> str:
    """Return the JSON pointer (RFC 6901) of a member of the value at `parent`."""
    escaped = str(token).replace("~", "~0").replace("/", "~1")
    return f"{parent}/{_LONE_SURROGATE.sub(chr(0xFFFD), escaped)}"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) == len(pairs):
        return result
    marked = _RepeatedKeys(result)
    times = Counter(key for key, _ in pairs)
    marked.repeated = tuple(key for key in result if times[key] > 1)
    return marked


def _integer(literal: str) -> int | float:
    # Python refuses very long literals; infinity is reported later, with its place.
    try:
        return int(literal)
    except ValueError:
        return math.inf


def _sound(value: Any, pointer: str, depth: int, problems: list[Problem]) -> Any:
    sound: Any = None
    match value:
        case None | bool():
            sound = value
        case str():
            sound = _sound_string(value, pointer, problems)
        case int() | float():
            sound = _sound_number(value, pointer, problems)
        case dict() | list() | tuple() if depth > MAX_DEPTH:
            problems.append(_too_deep(pointer))
        case list() | tuple():
            sound = [
                _sound(item, pointer_to(pointer, index), depth + 1, problems)
                for index, item in enumerate(value)
            ]
        case dict():
            sound = _sound_object(value, pointer, depth, problems)
        case _:
            problems.append(_not_json(pointer, value))
    return sound


def _sound_object(
    value: dict[Any, Any], pointer: str, depth: int, problems: list[Problem]
) -> dict[str, Any]:
    if isinstance(value, _RepeatedKeys):
        problems.extend(
            RepeatedKeyProblem(
                code="spec-duplicate-key",
                where=pointer_to(pointer, key),
                found="the key appears more than once",
                expected="each key once in an object",
                remedy="remove all but one",
            )
            for key in value.repeated
        )
    result: dict[str, Any] = {}
    for key, member in value.items():
        if not isinstance(key, str):
            problems.append(_not_json(pointer, key))
            continue
        where = pointer_to(pointer, key)
        result[_sound_string(key, where, problems)] = _sound(member, where, depth + 1, problems)
    return result


def _sound_string(value: str, pointer: str, problems: list[Problem]) -> str:
    if _LONE_SURROGATE.search(value) is None:
        return value
    problems.append(
        Problem(
            code="spec-lone-surrogate",
            where=pointer,
            found="half of a surrogate pair (\\ud800 to \\udfff)",
            expected="Unicode text",
        )
    )
    return _LONE_SURROGATE.sub("\ufffd", value)


def _sound_number(value: float, pointer: str, problems: list[Problem]) -> float:
    too_large = isinstance(value, int) and value.bit_length() > _MAX_INTEGER_BITS
    if not too_large and math.isfinite(value):
        return value
    problems.append(
        Problem(
            code="spec-number-range",
            where=pointer,
            found="NaN, an infinity or a number too large to hold",
            expected="a finite number",
        )
    )
    return 0


def _not_json(pointer: str, value: Any) -> Problem:
    return Problem(
        code="spec-wrong-type",
        where=pointer,
        found=f"a Python {type(value).__name__}",
        expected="a JSON value",
    )


def _too_deep(pointer: str) -> Problem:
    return Problem(
        code="spec-too-deep",
        where=pointer,
        found=f"objects or arrays nested more than {MAX_DEPTH} levels deep",
        expected=f"at most {MAX_DEPTH} levels",
    )


def _syntax_error(text: str, error: json.JSONDecodeError) -> InvalidSpecError:
    where = f"line {error.lineno} column {error.colno}"
    space = _SPACE.match(text, error.pos)
    start = space.end() if space else error.pos
    if text.startswith(("//", "/*", "#"), start):
        before = text[:start]
        where = f"line {before.count(chr(10)) + 1} column {start - before.rfind(chr(10))}"
        return InvalidSpecError.of(
            "spec-comment",
            "a comment",
            where=where,
            expected="JSON, which has no comments",
            remedy="remove the comments",
        )
    return InvalidSpecError.of(
        "spec-not-json", f"not JSON: {error.msg}", where=where, expected="a JSON object"
    )
