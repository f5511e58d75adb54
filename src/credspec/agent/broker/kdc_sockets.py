"""The sockets of one container's KDC: TCP with deadlines and limits, UDP that leads to TCP.

They are open in the container's network namespace, whose other programs may connect as well: what
they may have is decided by the decoy's key. More requests than the limits allow wait in the
kernel's queue, so that a flood in one container costs the others nothing.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from credspec.kerberos.kdc.request import MAX_BYTES
from credspec.rate_limit import Clock, TokenBucket
from credspec.service.events import Event, emit

_RATE, _BURST = 100.0, 400.0
_MOST_OPEN: Final = 64
_DATAGRAMS_A_TURN: Final = 8
_READ_SECONDS: Final = 5.0
_ANSWER_SECONDS: Final = 20.0
_PAUSE_SECONDS: Final = 0.1
_LENGTH: Final = struct.Struct(">I")
_LOOPBACK: Final = "127.0.0.1"
_DATAGRAM_BYTES: Final = 4096


class UnfitSocketsError(Exception):
    """Sockets are not a listening TCP socket and a UDP socket at one port of the loopback."""


class KdcSockets:
    """Serves requests that come to a pair of sockets.

    `answer` returns the reply to a message, `too_big` that to a datagram. Clock can be replaced.

    Raises:
        UnfitSocketsError: see there.
    """

    def __init__(
        self,
        tcp: socket.socket,
        udp: socket.socket,
        answer: Callable[[bytes], Awaitable[bytes]],
        too_big: Callable[[bytes], bytes],
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        self._tcp, self._udp = tcp, udp
        try:
            self.port = _checked_port(tcp, udp)
        except OSError:
            raise UnfitSocketsError from None
        self._answer = answer
        self._too_big = too_big
        self._clock = clock
        self._bucket = TokenBucket(_RATE, _BURST, clock())
        self._tasks: set[asyncio.Task[None]] = set()
        self._pauses: list[asyncio.TimerHandle] = []
        self._is_closed = False

    @property
    def descriptors(self) -> tuple[int, int]:
        """The descriptors of both sockets."""
        return self._tcp.fileno(), self._udp.fileno()

    def start(self) -> None:
        """Serve from now on, in the running event loop."""
        self._tcp.setblocking(False)
        self._udp.setblocking(False)
        self._listen(self._tcp, self._accept)
        self._listen(self._udp, self._receive)

    def close(self) -> None:
        """Close both sockets, and end what is under way."""
        if self._is_closed:
            return
        self._is_closed = True
        loop = asyncio.get_running_loop()
        for handle in self._pauses:
            handle.cancel()
        for each in (self._tcp, self._udp):
            loop.remove_reader(each.fileno())
            each.close()
        for task in self._tasks:
            task.cancel()

    def _listen(self, on: socket.socket, call: Callable[[], None]) -> None:
        if not self._is_closed:
            asyncio.get_running_loop().add_reader(on.fileno(), call)

    def _pause(self, on: socket.socket, call: Callable[[], None], seconds: float) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(on.fileno())
        now = loop.time()
        self._pauses = [handle for handle in self._pauses if handle.when() > now]
        self._pauses.append(loop.call_later(seconds, self._listen, on, call))

    def _accept(self) -> None:
        """Take one connection in; more in later turns, in which others have theirs."""
        if len(self._tasks) >= _MOST_OPEN:
            asyncio.get_running_loop().remove_reader(self._tcp.fileno())
            return  # the end of one listens again
        wait = self._bucket.delay(self._clock())
        if wait > 0:
            self._pause(self._tcp, self._accept, wait)
            return
        try:
            connection, _ = self._tcp.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):
            return
        except OSError:
            self._pause(self._tcp, self._accept, _PAUSE_SECONDS)  # files or memory are short
            return
        self._bucket.take(self._clock())
        connection.setblocking(False)
        task = asyncio.get_running_loop().create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._served)

    def _served(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            emit(Event.INTERNAL_ERROR, path="broker", error=type(error).__name__)
        self._listen(self._tcp, self._accept)

    async def _serve(self, connection: socket.socket) -> None:
        """Answer one request, and close: clients ask each in a connection of its own."""
        loop = asyncio.get_running_loop()
        with connection, suppress(OSError, TimeoutError):
            async with asyncio.timeout(_READ_SECONDS):
                (size,) = _LENGTH.unpack(await _received(connection, _LENGTH.size))
                # One byte more than is read shows that a message is too long.
                data = await _received(connection, min(size, MAX_BYTES + 1))
            async with asyncio.timeout(_ANSWER_SECONDS):
                reply = await self._answer(data)
                await loop.sock_sendall(connection, _LENGTH.pack(len(reply)) + reply)

    def _receive(self) -> None:
        for _ in range(_DATAGRAMS_A_TURN):
            wait = self._bucket.delay(self._clock())
            if wait > 0:
                self._pause(self._udp, self._receive, wait)
                return
            try:
                data, address = self._udp.recvfrom(_DATAGRAM_BYTES)
            except OSError:
                return
            self._bucket.take(self._clock())
            with suppress(OSError):
                self._udp.sendto(self._too_big(data), address)


async def _received(connection: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = bytearray()
    while len(data) < size:
        chunk = await loop.sock_recv(connection, size - len(data))
        if not chunk:
            raise ConnectionError
        data += chunk
    return bytes(data)


def _checked_port(tcp: socket.socket, udp: socket.socket) -> int:
    """Return the port of both; who passes sockets may pass any."""
    for each, kind in ((tcp, socket.SOCK_STREAM), (udp, socket.SOCK_DGRAM)):
        if each.family != socket.AF_INET or each.type != kind:
            raise UnfitSocketsError
    if not tcp.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise UnfitSocketsError
    (host, port), other = tcp.getsockname(), udp.getsockname()
    if host != _LOOPBACK or not port or other != (host, port):
        raise UnfitSocketsError
    return int(port)
