"""The head of an HTTP/1.x request (RFC 9112), as far as a forwarding gateway must understand it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final, Self

MAX_HEAD_BYTES: Final = 64 * 1024
END: Final = b"\r\n\r\n"

_REQUEST_LINE: Final = re.compile(rb"([A-Z]+) (\S+) HTTP/1\.[01]")


class MalformedHeadError(ValueError):
    """The bytes are no head of a request."""


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request's head: the fields are kept in order and byte for byte."""

    method: str
    target: str
    request_line: bytes
    fields: tuple[tuple[bytes, bytes], ...]

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Read a head, including its final empty line.

        Raises:
            MalformedHeadError: not a head.
        """
        if not data.endswith(END):
            raise MalformedHeadError("no end")
        request_line, *lines = data[: -len(END)].split(b"\r\n")
        match = _REQUEST_LINE.fullmatch(request_line)
        if match is None:
            raise MalformedHeadError("no request line")
        fields = []
        for line in lines:
            name, colon, value = line.partition(b":")
            # Folded lines and spaces before the colon are how requests are smuggled.
            if not colon or not name or name != name.strip() or b"\n" in line or b"\r" in line:
                raise MalformedHeadError("no field")
            fields.append((name, value))
        method, target = (part.decode("latin-1") for part in match.groups())
        return cls(method, target, request_line, tuple(fields))

    def pack(self) -> bytes:
        """Return the head's bytes."""
        lines = [self.request_line, *(name + b":" + value for name, value in self.fields)]
        return b"\r\n".join(lines) + END

    def values(self, name: str) -> list[str]:
        """Return all values of a field, by its name in any letter case."""
        wanted = name.lower().encode()
        return [v.strip().decode("latin-1") for n, v in self.fields if n.lower() == wanted]

    @property
    def upgrades(self) -> bool:
        """Whether the client asks for another protocol on this connection (attach, exec, build)."""
        return bool(self.values("Upgrade"))

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
