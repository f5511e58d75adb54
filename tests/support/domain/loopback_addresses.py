"""Loopback addresses on which servers of tests listen, with ports that are known beforehand."""

from __future__ import annotations

import contextlib
import errno
import itertools
import socket
from collections.abc import Iterable

_NUMBERS = itertools.count()


def listen(network: str, *ports: int, udp: Iterable[int] = ()) -> tuple[str, list[socket.socket]]:
    """Listen on all ports of one address of a /24, such as 127.98.0.

    Each call takes another address, and none of which a port is taken: other tests may run beside
    this one. The sockets are in the order of the ports, TCP first.
    """
    for _ in range(250):
        address = f"{network}.{1 + next(_NUMBERS) % 250}"
        with contextlib.ExitStack() as opened:
            sockets = []
            try:
                for port in ports:
                    server = socket.create_server((address, port))
                    sockets.append(opened.enter_context(server))
                for port in udp:
                    found = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                    found.bind((address, port))
                    sockets.append(found)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            opened.pop_all()
            return address, sockets
    raise AssertionError(f"no free address in {network}.0/24")
