"""Sockets that callers pass along with a request (SCM_RIGHTS of unix(7))."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from typing import Any, Final

_MOST: Final = 2
_DESCRIPTOR: Final = struct.calcsize("i")
_open: Final[dict[int, PassingSocket]] = {}


class PassingSocket(socket.socket):
    """An accepted connection that keeps the descriptors which come with its bytes.

    asyncio reads by `recv` and throws them away; so this one reads by recvmsg(2). At most two are
    kept, the last ones. It takes the place of `connection`.
    """

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(fileno=connection.detach())
        self.setblocking(False)
        self._passed: list[int] = []
        self._number = self.fileno()
        _open[self._number] = self

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Read bytes, and keep what comes with them."""
        space = socket.CMSG_SPACE(_MOST * _DESCRIPTOR)
        data, messages, _, _ = self.recvmsg(size, space, flags | socket.MSG_CMSG_CLOEXEC)
        for level, kind, content in messages:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                whole = content[: len(content) - len(content) % _DESCRIPTOR]
                self._passed += [number for (number,) in struct.iter_unpack("i", whole)]
        while len(self._passed) > _MOST:
            os.close(self._passed.pop(0))
        return data

    def take(self) -> list[socket.socket]:
        """Return the sockets that came; what is none is closed."""
        passed, self._passed = self._passed, []
        found = []
        for descriptor in passed:
            try:
                found.append(socket.socket(fileno=descriptor))
            except OSError:
                os.close(descriptor)
        return found

    def drop(self) -> None:
        """Close what came and was not taken."""
        _open.pop(self._number, None)
        while self._passed:
            with suppress(OSError):
                os.close(self._passed.pop())


def passed_sockets(connection: Any) -> list[socket.socket]:
    """Return the sockets that came with a request, each once; the caller closes them.

    `connection` is the transport's ``socket``.
    """
    found = _open.get(connection.fileno()) if connection is not None else None
    return [] if found is None else found.take()
