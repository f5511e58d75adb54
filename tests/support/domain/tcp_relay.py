"""An address at which a real server is reached until the relay closes, as one that is moved."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

from support.domain.loopback_addresses import listen


class TcpRelay:
    """Takes connections on a loopback address of its own and passes the bytes on."""

    def __init__(self, target: str, ports: tuple[int, ...]) -> None:
        self.address, listeners = listen("127.97.0", *ports)
        self._target = target
        self._open: list[socket.socket] = list(listeners)
        for listener, port in zip(listeners, ports, strict=True):
            threading.Thread(target=self._accept, args=(listener, port), daemon=True).start()

    def close(self) -> None:
        """Refuse connections from now on, and end those there are."""
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self, listener: socket.socket, port: int) -> None:
        with contextlib.suppress(OSError):
            while True:
                taken, _ = listener.accept()
                there = socket.create_connection((self._target, port))
                self._open += [taken, there]
                for pair in ((taken, there), (there, taken)):
                    threading.Thread(target=_copy, args=pair, daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def tcp_relay(target: str, *ports: int) -> Iterator[TcpRelay]:
    """Pass on until the end of the block, or until it is closed."""
    relay = TcpRelay(target, ports)
    try:
        yield relay
    finally:
        relay.close()
