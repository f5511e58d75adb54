"""HTTP/1.1 on one connection: h11 knows the protocol, asyncio's streams have the socket.

A head must come within some seconds, and so must the next one. A body has a Content-Length (RFC
9110 8.6), and is read when a handler asks for it. What is left of one is read and thrown away for a
moment: the client would not see the answer if the connection were closed with data that nobody has
read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import h11

from credspec.http.messages import HttpError, Request, Response

_PIECE_BYTES: Final = 64 * 1024
_NO_CONTENT: Final = 204

Answering = Callable[[Request], Awaitable[Response]]
Refusing = Callable[[HttpError], Response]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionTimes:
    """How long a connection may take for what, in seconds, and how many bytes a head may have.

    `head` is from the start or the answer before, `unread_body` for what no handler has read,
    `answer` for a client that does not read its answer.
    """

    head: float
    unread_body: float
    answer: float
    head_bytes: int


class HttpConnection:
    """One connection, answered by a function; `refuse` answers what is no request at all."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answer: Answering,
        refuse: Refusing,
        times: ConnectionTimes,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._answer = answer
        self._refuse = refuse
        self._times = times
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=times.head_bytes)
        self._is_head = False
        self.is_idle = True
        """Whether no request is being answered."""

    async def serve(self) -> None:
        """Answer one request after the other until either side closes; raises nothing."""
        try:
            # A client that goes away is its own affair.
            with suppress(ConnectionError, TimeoutError, h11.ProtocolError):
                while await self._one():
                    self._http.start_next_cycle()
                    # Others have their turn before a request that is here already.
                    await asyncio.sleep(0)
        finally:
            self._writer.close()

    async def _one(self) -> bool:
        """Answer a request; return whether another one may come."""
        self.is_idle = True
        try:
            async with asyncio.timeout(self._times.head):
                event = await self._next(self._times.head_bytes)
        except h11.RemoteProtocolError:
            return await self._turn_away(HttpError(400))
        if not isinstance(event, h11.Request):
            return False
        if any(name == b"transfer-encoding" for name, _ in event.headers):
            # Pieces of a byte each would hold the event loop, and two lengths smuggle requests.
            return await self._turn_away(HttpError(411))
        self.is_idle = False
        response = await self._answer(self._request(event))
        is_read = self._is_read()
        if response.is_sent:
            await self._finish()
        else:
            response.is_last |= not is_read
            await self._send(response)
        if not is_read:
            await self._throw_away()
        return is_read and not response.is_last and self._http.our_state is h11.DONE

    async def _turn_away(self, error: HttpError) -> bool:
        """Refuse what is no request, as the last answer of this connection."""
        await self._send(self._refuse(error))
        await self._throw_away()
        return False

    def _request(self, event: h11.Request) -> Request:
        self._is_head = event.method == b"HEAD"
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
        target = event.target.decode("latin-1")
        if not target.startswith("/"):
            # The form for proxies (RFC 9112 3.2.2), which servers take as well.
            _, _, rest = target.partition("://")
            target = "/" + rest.partition("/")[2]
        return Request(event.method.decode("latin-1"), target.partition("?")[0], headers, self)

    def _is_read(self) -> bool:
        """Return whether all of a request is here, but for what a handler has read of it."""
        with suppress(h11.RemoteProtocolError):
            while self._http.their_state is h11.SEND_BODY:
                if self._http.next_event() is h11.NEED_DATA:
                    return False
        return self._http.their_state is h11.DONE

    async def _next(self, piece_bytes: int = _PIECE_BYTES) -> object:
        """Return the next event of the client's; so much is read at a time."""
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._reader.read(piece_bytes))
        return event

    # For handlers, see `Exchange`.

    async def read_body(self, most: int) -> bytes:
        """Return the whole body, see `Exchange`."""
        body = bytearray()
        try:
            if self._http.they_are_waiting_for_100_continue:
                await self._write(h11.InformationalResponse(status_code=100, headers=[]))
            while isinstance(event := await self._next(), h11.Data):
                body += event.data
                if len(body) > most:
                    raise HttpError(413)
        except h11.RemoteProtocolError:
            raise HttpError(400) from None
        return bytes(body)

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the head of an answer that comes in pieces."""
        reason = HTTPStatus(status).phrase
        named = list(headers.items())
        await self._write(h11.Response(status_code=status, headers=named, reason=reason))

    async def write(self, piece: bytes) -> None:
        """Send a piece, and wait while the client does not read."""
        if not self._is_head:
            await self._write(h11.Data(data=piece))

    def abort(self) -> None:
        """Cut the connection off."""
        self._writer.transport.abort()

    def get_extra_info(self, name: str) -> Any:
        """Return what asyncio's transport has under a name."""
        return self._writer.get_extra_info(name)

    async def _send(self, response: Response) -> None:
        headers = dict(response.headers)
        if response.status != _NO_CONTENT:
            headers["Content-Length"] = str(len(response.body))
        if response.is_last:
            headers["Connection"] = "close"
        try:
            async with asyncio.timeout(self._times.answer):
                await self.begin(response.status, headers)
                if response.body:
                    await self.write(response.body)
                await self._finish()
        except TimeoutError:
            self.abort()
            raise

    async def _finish(self) -> None:
        if self._http.our_state is h11.SEND_BODY:
            await self._write(h11.EndOfMessage())

    async def _write(self, event: h11.Event) -> None:
        content = self._http.send(event)
        if content:
            self._writer.write(content)
            await self._writer.drain()

    async def _throw_away(self) -> None:
        """Read what still comes of a request that was answered, after the end of the answer."""
        self._writer.write_eof()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._times.unread_body):
                while await self._reader.read(_PIECE_BYTES):
                    pass
