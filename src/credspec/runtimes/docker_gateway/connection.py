"""One side of a conversation: a non-blocking Unix socket, and what came in but was not yet used."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Final, Self

from credspec.runtimes.docker_gateway.tunnel import CHUNK

_DIAL_SECONDS: Final = 10.0
_BACKLOG_FULL_SECONDS: Final = 0.05


class Connection:
    """Reads by separator and by length, which a bare socket does not; closes with its block."""

    def __init__(self, side: socket.socket) -> None:
        self.socket = side
        self._received = bytearray()

    @classmethod
    async def dial(cls, path: Path) -> Self:
        """Connect to a socket in the file system.

        Raises:
            OSError: no process answers there, or not in time.
        """
        side = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            async with asyncio.timeout(_DIAL_SECONDS):
                while True:
                    try:
                        side.connect(str(path))
                    except BlockingIOError:
                        # A full backlog; a Unix socket, unlike TCP, leaves nothing to wait for.
                        await asyncio.sleep(_BACKLOG_FULL_SECONDS)
                    else:
                        return cls(side)
        except BaseException:
            side.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    async def send(self, data: bytes | bytearray) -> None:
        """Send everything."""
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def read_until(self, separator: bytes, limit: int) -> bytearray:
        """Return what comes up to and including `separator`.

        Raises:
            EOFError: the other side ended before.
            asyncio.LimitOverrunError: that would be more than `limit` bytes.
        """
        searched = 0
        while True:
            start = max(0, searched - len(separator) + 1)
            at = self._received.find(separator, start, limit)
            if at >= 0:
                return self._take(at + len(separator))
            searched = len(self._received)
            if searched >= limit:
                raise asyncio.LimitOverrunError("separator not found", searched)
            await self._receive()

    async def read_exactly(self, length: int) -> bytearray:
        """Return the next `length` bytes.

        Raises:
            EOFError: the other side ended before.
        """
        while len(self._received) < length:
            await self._receive()
        return self._take(length)

    async def read_some(self) -> bytearray:
        """Return what comes next, empty at the other side's end."""
        if not self._received:
            try:
                await self._receive()
            except EOFError:
                return bytearray()
        return self.take_rest()

    def take_rest(self) -> bytearray:
        """Return what came in and was not yet read."""
        return self._take(len(self._received))

    def _take(self, length: int) -> bytearray:
        if length == len(self._received):
            # Nothing of it stays here, and nothing is copied.
            taken, self._received = self._received, bytearray()
            return taken
        taken = self._received[:length]
        del self._received[:length]
        return taken

    async def _receive(self) -> None:
        data = await asyncio.get_running_loop().sock_recv(self.socket, CHUNK)
        if not data:
            raise EOFError
        self._received += data
        # It does not wait while the other side is quick, and others want their turn.
        del data
        await asyncio.sleep(0)
