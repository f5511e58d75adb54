"""JSON objects of which some members change and all others stay, byte for byte, as they were.

Only the members asked for are decoded: numbers of any size, repeated keys, unknown members and
escapes elsewhere never pass through a Python value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, NoReturn, Self

_SPACE: Final = re.compile(r"[ \t\n\r]*")


class NotAnObjectError(ValueError):
    """The text is not a JSON object."""


def _refuse(constant: str) -> NoReturn:
    raise NotAnObjectError(f"{constant} is not JSON")


@dataclass(frozen=True, slots=True)
class Number:
    """A number as written: there is no size that Python would refuse or round."""

    text: str

    def __str__(self) -> str:
        return self.text


_DECODER: Final = json.JSONDecoder(parse_float=Number, parse_int=Number, parse_constant=_refuse)


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an object: its key, decoded and as written, and its value as written."""

    key: str
    key_text: str
    text: str

    @property
    def value(self) -> Any:
        """The decoded value, with each number as a `Number`."""
        return _DECODER.decode(self.text)


@dataclass(frozen=True, slots=True)
class JsonObject:
    """A JSON object as its members in order; changing one gives a new object."""

    members: tuple[Member, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text of an object.

        Raises:
            NotAnObjectError: not JSON, or another kind of value.
        """
        try:
            if not isinstance(_DECODER.decode(text), dict):
                raise NotAnObjectError("not an object")
            return cls(tuple(_members(text)))
        except (ValueError, RecursionError) as error:
            raise NotAnObjectError(str(error)) from None

    def __str__(self) -> str:
        return "{" + ",".join(f"{member.key_text}:{member.text}" for member in self.members) + "}"

    def find(self, key: str) -> list[Member]:
        """Return the members that a Go program reads as `key`, which is in any letter case."""
        return [member for member in self.members if member.key.casefold() == key.casefold()]

    def with_member(self, key: str, text: str) -> Self:
        """Return the object with the value of `key` replaced, or with `key` added at the end."""
        found = self.find(key)
        if not found:
            return replace(self, members=(*self.members, Member(key, json.dumps(key), text)))
        members = (replace(m, text=text) if m is found[-1] else m for m in self.members)
        return replace(self, members=tuple(members))

    def without_exactly(self, key: str) -> Self:
        """Return the object without the members called `key`, in this letter case."""
        return replace(self, members=tuple(m for m in self.members if m.key != key))


def _members(text: str) -> Iterator[Member]:
    """Yield the members of the object in `text`, which is known to be valid."""
    at = _skip_space(text, text.index("{") + 1)
    while text[at] != "}":
        key, key_end = _DECODER.raw_decode(text, at)
        start = _skip_space(text, _skip_space(text, key_end) + 1)
        _, end = _DECODER.raw_decode(text, start)
        yield Member(key, text[at:key_end], text[start:end])
        at = _skip_space(text, end)
        if text[at] == ",":
            at = _skip_space(text, at + 1)


def elements(text: str) -> list[str]:
    """Return the elements of an array, each as written.

    Raises:
        NotAnObjectError: not JSON, or another kind of value.
    """
    try:
        if not isinstance(_DECODER.decode(text), list):
            raise NotAnObjectError("not an array")
    except (ValueError, RecursionError) as error:
        raise NotAnObjectError(str(error)) from None
    found = []
    at = _skip_space(text, text.index("[") + 1)
    while text[at] != "]":
        _, end = _DECODER.raw_decode(text, at)
        found.append(text[at:end])
        at = _skip_space(text, end)
        if text[at] == ",":
            at = _skip_space(text, at + 1)
    return found


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at
