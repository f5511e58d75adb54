"""Who connected, with real sockets."""

from __future__ import annotations

import os
import socket

import pytest

from credspec.sockets.peers import Peer, peer_of


def test_the_kernel_tells_who_connected() -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert peer_of(one) == Peer(uid=os.getuid(), pid=os.getpid())
        assert peer_of(one).key == os.getuid()


@pytest.mark.parametrize(
    ("address", "key"), [("127.0.0.1", "127.0.0.1"), ("::1", "::/64"), ("", "127.0.0.1")]
)
def test_of_a_network_peer_the_address_counts(address: str, key: str) -> None:
    family = socket.AF_INET if "." in address else socket.AF_INET6
    with socket.socket(family) as listener:
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((address, 0))
        listener.listen()
        port = listener.getsockname()[1]
        with socket.create_connection((address or "127.0.0.1", port)):
            connection, _ = listener.accept()
            with connection:
                peer = peer_of(connection)
    assert peer == Peer(address=key)
    assert str(peer) == peer.key == key
