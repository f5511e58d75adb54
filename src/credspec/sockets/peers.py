"""Who is at the other end of a connection, as the kernel says before a byte is read."""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import Final, NamedTuple

_CREDENTIALS: Final = struct.Struct("iII")  # ucred of unix(7)
_NETWORK_BITS: Final = 64


class Peer(NamedTuple):
    """Who connected: by a Unix socket `uid` and `pid` as the kernel knows them, by TCP `address`.

    `uid` and `pid` are -1 for TCP. Of an IPv6 address it is the /64, which one host may have whole.
    """

    uid: int = -1
    pid: int = -1
    address: str = ""

    @property
    def key(self) -> int | str:
        """What limits count by: the user id, or the address."""
        return self.address or self.uid

    def __str__(self) -> str:
        return self.address or f"user {self.uid}"


def peer_of(connection: socket.socket) -> Peer:
    """Return who connected.

    Raises:
        OSError: the connection has gone.
    """
    if connection.family == socket.AF_UNIX:
        data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _ = _CREDENTIALS.unpack(data)
        return Peer(uid=uid, pid=pid)
    address = ipaddress.ip_address(str(connection.getpeername()[0]).partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return Peer(address=str(address.ipv4_mapped))
        network = ipaddress.ip_network((address, _NETWORK_BITS), strict=False)
        return Peer(address=str(network))
    return Peer(address=str(address))
