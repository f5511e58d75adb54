"""A small HTTP/1.1 client on a TLS or Unix socket; h11 knows the protocol.

An answer is read up to a limit, and no other address than the one given is ever connected to.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import h11

_IDLE_SECONDS: Final = 15.0
_PIECE_BYTES: Final = 64 * 1024
_HEAD_BYTES: Final = 64 * 1024


class TooLongError(Exception):
    """The answer has more bytes than it may have."""


class HttpAnswer(NamedTuple):
    """An answer; names of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    http: h11.Connection = field(
        default_factory=lambda: h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES)
    )
    timer: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        return not self.writer.is_closing() and not self.reader.at_eof()

    def close(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        # Without the end of TLS, which would have to be waited for.
        self.writer.transport.abort()


class HttpClient:
    """Asks one server; to be used in one event loop, and closed in it.

    `address` is the URL of a server, or the path of a Unix socket. `tls_context` is called for each
    new connection to a URL. At most `connections` are open at a time, `kept` of them without a
    question for some seconds, so that the next one need not connect.
    """

    def __init__(
        self,
        address: str | Path,
        tls_context: Callable[[], ssl.SSLContext] | None = None,
        *,
        connections: int,
        kept: int,
    ) -> None:
        self._address = address
        self._tls_context = tls_context
        self._kept = kept
        self._free = asyncio.Semaphore(connections)
        self._idle: list[_Connection] = []

    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        most_bytes: int,
    ) -> HttpAnswer:
        """Send a request, and return its answer whatever its status; the caller has the deadline.

        Raises:
            TooLongError: the body has more than `most_bytes`.
            OSError: there is no connection, or it was lost; of TLS, `ssl.SSLError`.
            ConnectionError: the answer is no HTTP.
        """
        async with self._free:
            connection = self._kept_one() or await self._connect()
            try:
                named = {"Host": self._host, **headers}
                if body is not None:
                    named["Content-Length"] = str(len(body))
                question = h11.Request(method=method, target=path, headers=list(named.items()))
                answer = await _asked(connection, question, body, most_bytes)
            except h11.ProtocolError as error:
                connection.close()
                raise ConnectionError(f"no HTTP: {error}") from None
            except BaseException:
                connection.close()
                raise
            self._keep(connection)
            return answer

    def close(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            self._idle.pop().close()

    def _kept_one(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.timer is not None:
                connection.timer.cancel()
            if connection.is_open:
                return connection
            connection.close()
        return None

    async def _connect(self) -> _Connection:
        if isinstance(self._address, Path):
            return _Connection(*await asyncio.open_unix_connection(str(self._address)))
        url = urlsplit(self._address)
        context = None if self._tls_context is None else self._tls_context()
        return _Connection(
            *await asyncio.open_connection(
                url.hostname,
                url.port or 443,
                ssl=context,
                server_hostname=url.hostname if context is not None else None,
            )
        )

    @property
    def _host(self) -> str:
        return "credspec" if isinstance(self._address, Path) else urlsplit(self._address).netloc

    def _keep(self, connection: _Connection) -> None:
        with suppress(h11.LocalProtocolError):
            connection.http.start_next_cycle()
        is_usable = connection.http.our_state is h11.IDLE and connection.is_open
        if not is_usable or len(self._idle) >= self._kept:
            connection.close()
            return
        self._idle.append(connection)
        loop = asyncio.get_running_loop()
        connection.timer = loop.call_later(_IDLE_SECONDS, self._drop, connection)

    def _drop(self, connection: _Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)
        connection.close()


async def _asked(
    connection: _Connection, question: h11.Request, body: bytes | None, most_bytes: int
) -> HttpAnswer:
    http, writer = connection.http, connection.writer
    sent = [
        http.send(question),
        http.send(h11.Data(data=body or b"")),
        http.send(h11.EndOfMessage()),
    ]
    writer.write(b"".join(filter(None, sent)))
    await writer.drain()
    head, found = None, bytearray()
    while not isinstance(event := await _next(connection), h11.EndOfMessage):
        if isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            found += event.data
            if len(found) > most_bytes:
                raise TooLongError
        elif isinstance(event, h11.ConnectionClosed):
            raise ConnectionResetError("the connection was closed without an answer")
    assert head is not None  # noqa: S101 - h11 lets no body come before it
    named = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
    return HttpAnswer(head.status_code, named, bytes(found))


async def _next(connection: _Connection) -> object:
    """Return the next event of the server's."""
    while (event := connection.http.next_event()) is h11.NEED_DATA:
        connection.http.receive_data(await connection.reader.read(_PIECE_BYTES))
    return event
