"""Heads of HTTP/1.x (RFC 9112), as far as a forwarding gateway must understand them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final, Self

MAX_HEAD_BYTES: Final = 64 * 1024
END: Final = b"\r\n\r\n"

_REQUEST_LINE: Final = re.compile(rb"([A-Z]+) (\S+) HTTP/1\.[01]")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: [^\r\n]*)?")
# Not within a field's line (RFC 9110 5.5): what reads on may take them for its end.
_NO_FIELD: Final = frozenset(b"\0\r\n")


class MalformedHeadError(ValueError):
    """The bytes are no head of a request or an answer."""


@dataclass(frozen=True, slots=True)
class _Head:
    """The first line, and the fields in order and byte for byte."""

    first_line: bytes
    fields: tuple[tuple[bytes, bytes], ...]

    def pack(self) -> bytes:
        """Return the head's bytes."""
        lines = [self.first_line, *(name + b":" + value for name, value in self.fields)]
        return b"\r\n".join(lines) + END

    def values(self, name: str) -> list[str]:
        """Return all values of a field, by its name in any letter case."""
        wanted = name.lower().encode()
        return [v.strip().decode("latin-1") for n, v in self.fields if n.lower() == wanted]

    def with_fields(self, **changes: str | None) -> Self:
        """Return a copy in which fields are replaced, or removed where None; ``_`` stands for -."""
        names = {name.replace("_", "-").lower().encode() for name in changes}
        kept = [field for field in self.fields if field[0].lower() not in names]
        added = [
            (name.replace("_", "-").encode(), f" {value}".encode())
            for name, value in changes.items()
            if value is not None
        ]
        return replace(self, fields=(*kept, *added))


@dataclass(frozen=True, slots=True)
class RequestHead(_Head):
    """A request's head."""

    method: str
    target: str

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Read a head, including its final empty line.

        Raises:
            MalformedHeadError: not a head.
        """
        line, fields = _split(data)
        match = _REQUEST_LINE.fullmatch(line)
        if match is None:
            raise MalformedHeadError("no request line")
        method, target = (part.decode("latin-1") for part in match.groups())
        return cls(line, fields, method, target)

    @property
    def upgrades(self) -> bool:
        """Whether the client asks for another protocol on this connection (attach, exec, build)."""
        return bool(self.values("Upgrade"))

    @property
    def has_body(self) -> bool:
        """Whether a body follows."""
        lengths = self.values("Content-Length")
        return bool(self.values("Transfer-Encoding")) or any(set(each) != {"0"} for each in lengths)


@dataclass(frozen=True, slots=True)
class AnswerHead(_Head):
    """An answer's head."""

    status: int

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Read a head, including its final empty line.

        Raises:
            MalformedHeadError: not a head.
        """
        line, fields = _split(data)
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            raise MalformedHeadError("no status line")
        return cls(line, fields, int(match[1]))


def closing(head: RequestHead) -> str:
    """Return the value of ``Connection`` that ends a request's connection with its answer."""
    options = [o.strip() for value in head.values("Connection") for o in value.split(",")]
    kept = [o for o in options if head.upgrades and o.lower() not in {"", "close", "keep-alive"}]
    return ", ".join([*kept, "close"])


def _split(data: bytes) -> tuple[bytes, tuple[tuple[bytes, bytes], ...]]:
    if not data.endswith(END):
        raise MalformedHeadError("no end")
    first, *lines = data[: -len(END)].split(b"\r\n")
    fields = []
    for line in lines:
        name, colon, value = line.partition(b":")
        # Folded lines and spaces before the colon are how requests are smuggled.
        if not colon or not name or name != name.strip() or not _NO_FIELD.isdisjoint(line):
            raise MalformedHeadError("no field")
        fields.append((name, value))
    return first, tuple(fields)
