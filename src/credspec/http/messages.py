"""A request and its answer, as handlers see them; `connection` has them on a socket."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, Generic, Protocol, TypeVar
from urllib.parse import unquote

JSON: Final = "application/json; charset=utf-8"
"""The content type of a document."""


class HttpError(Exception):
    """A request that is answered with an error of HTTP's own; `allow` are the methods of a path."""

    def __init__(self, status: int, allow: str = "") -> None:
        super().__init__(status)
        self.status = status
        self.allow = allow

    @property
    def reason(self) -> str:
        """What the status is called."""
        return HTTPStatus(self.status).phrase


class Exchange(Protocol):
    """The connection of a request, for what a handler reads and writes by itself."""

    async def read_body(self, most: int) -> bytes:
        """Return the whole body.

        Raises:
            HttpError: 413 if it has more than `most` bytes, 400 if it is malformed.
        """

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the head of an answer that comes in pieces."""

    async def write(self, piece: bytes) -> None:
        """Send a piece, and wait while the client does not read."""

    def abort(self) -> None:
        """Cut the connection off."""

    def get_extra_info(self, name: str) -> Any:
        """Return what asyncio's transport has under a name."""


@dataclass(slots=True)
class Request:
    """A request whose head was read; names of `headers` are in lower case.

    `target` is the path as it was sent, `matched` what it has where its pattern has ``{id}``.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    exchange: Exchange
    matched: str = ""

    @property
    def path(self) -> str:
        """The path to be shown."""
        return unquote(self.target)


@dataclass(slots=True)
class Response:
    """An answer; with `is_sent`, one that the handler has sent in pieces.

    After an answer with `is_last` the connection is closed.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    is_last: bool = False
    is_sent: bool = False


def json_response(document: object, status: int = 200, content_type: str = JSON) -> Response:
    """Return an answer with a document in JSON."""
    return Response(status, json.dumps(document).encode(), {"Content-Type": content_type})


_Caller = TypeVar("_Caller")


class Routes(Generic[_Caller]):
    """Which handler a path has for each method; a pattern may have ``{id}`` in place of a part.

    A handler is given the request and who sent it.
    """

    def __init__(self) -> None:
        self._patterns: list[tuple[re.Pattern[str], dict[str, _Handler[_Caller]]]] = []
        self._known: dict[str, dict[str, _Handler[_Caller]]] = {}

    def add(self, method: str, pattern: str, handler: _Handler[_Caller]) -> None:
        """Add one; what may be got with GET may be asked for with HEAD."""
        if pattern not in self._known:
            self._known[pattern] = {}
            parts = (re.escape(part) for part in pattern.split("{id}"))
            self._patterns.append((re.compile("([^/]+)".join(parts)), self._known[pattern]))
        for each in ("GET", "HEAD") if method == "GET" else (method,):
            self._known[pattern][each] = handler

    def find(self, request: Request) -> _Handler[_Caller]:
        """Return the handler of a request, and set what it has in place of ``{id}``.

        Raises:
            HttpError: 404 or 405.
        """
        for pattern, methods in self._patterns:
            match = pattern.fullmatch(request.target)
            if match is None:
                continue
            if request.method not in methods:
                raise HttpError(405, ",".join(sorted(methods)))
            request.matched = unquote("".join(match.groups()))
            return methods[request.method]
        raise HttpError(404)


_Handler = Callable[[Request, _Caller], Awaitable[Response]]
