"""Sockets that come along with a request."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from credspec.agent.doors.http.passed_sockets import PassingSocket, passed_sockets


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, PassingSocket]]:
    sender, accepted = socket.socketpair()
    passing = PassingSocket(accepted)
    yield sender, passing
    passing.drop()
    passing.close()
    sender.close()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_sockets_come_with_the_bytes(ends: tuple[socket.socket, PassingSocket]) -> None:
    sender, passing = ends
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        socket.send_fds(sender, [b"POST"], [tcp.fileno(), udp.fileno()])
        assert passing.recv(100) == b"POST"
        found = passed_sockets(passing)
        assert [each.type for each in found] == [tcp.type, udp.type]
        assert not any(os.get_inheritable(each.fileno()) for each in found)
        assert passed_sockets(passing) == []
        for each in found:
            each.close()


def test_without_any(ends: tuple[socket.socket, PassingSocket]) -> None:
    sender, passing = ends
    sender.send(b"GET")
    assert passing.recv(100) == b"GET"
    assert passed_sockets(passing) == []
    assert passed_sockets(None) == []
    with socket.socket() as other:
        assert passed_sockets(other) == []
    with pytest.raises(BlockingIOError):
        passing.recv(100)


def test_more_than_are_wanted_and_what_is_no_socket_are_closed(
    ends: tuple[socket.socket, PassingSocket], tmp_path: Path
) -> None:
    sender, passing = ends
    file = os.open(tmp_path, os.O_RDONLY)
    before = open_files()
    for _ in range(10):
        socket.send_fds(sender, [b"x"], [file] * 20)
        assert passing.recv(1) == b"x"
        assert open_files() <= before + 2
    assert passed_sockets(passing) == []
    assert open_files() == before
    socket.send_fds(sender, [b"x"], [file])
    passing.recv(1)
    passing.drop()
    assert open_files() == before
    os.close(file)
