"""The clients of the agent's socket against servers that are busy, or that refuse early."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from credspec.agent.doors.http.server import refusal_response
from credspec.api_client import AgentClient
from credspec.contract import agent_client
from credspec.contract.errors import ShimError
from credspec.errors import AgentUnreachableError, NotPermittedError
from credspec.sockets.admission import Refusal
from credspec.sockets.peers import Peer

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
LARGE = {"spec": "raw://" + "x" * 4_000_000}
Ask = Callable[[Path], Any]


def by_client(path: Path) -> Any:
    return AgentClient(path, seconds=5).request("PUT", "/v1/leases/x", LARGE)


def by_shim(path: Path) -> Any:
    return agent_client.ask_agent(str(path), "PUT", "/v1/leases/x", LARGE)


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as found:
        found.bind(str(tmp_path / "s"))
        found.listen(0)
        yield found


@pytest.mark.parametrize("ask", [by_client, by_shim])
def test_a_full_queue_is_waited_for(listener: socket.socket, tmp_path: Path, ask: Ask) -> None:
    """With settimeout(), connect(2) would fail at once with EAGAIN."""
    waiting = socket.socket(socket.AF_UNIX)
    waiting.connect(str(tmp_path / "s"))

    def serve() -> None:
        time.sleep(0.3)
        listener.accept()[0].close()
        connection, _ = listener.accept()
        with connection:
            read = b""
            while not read.endswith(b'x"}'):
                read = (read + connection.recv(1 << 20))[-10:]
            connection.sendall(OK)

    server = threading.Thread(target=serve)
    server.start()
    assert ask(tmp_path / "s") == {}
    server.join()
    waiting.close()


@pytest.mark.parametrize("ask", [by_client, by_shim])
def test_a_queue_that_stays_full_is_an_error_in_time(
    listener: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Ask
) -> None:
    monkeypatch.setattr(agent_client, "_AGENT_SECONDS", 1.0)
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.connect(str(tmp_path / "s"))
        with pytest.raises((AgentUnreachableError, ShimError), match="agent-"):
            ask(tmp_path / "s") if ask is by_shim else AgentClient(tmp_path / "s", seconds=1).get(
                "/"
            )


@pytest.mark.parametrize("ask", [by_client, by_shim])
def test_a_refusal_that_comes_before_the_request_is_read(
    listener: socket.socket, tmp_path: Path, ask: Ask
) -> None:
    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.send(refusal_response(Peer(uid=7), Refusal.NOT_PERMITTED))

    server = threading.Thread(target=serve)
    server.start()
    with pytest.raises((NotPermittedError, ShimError), match="caller-not-permitted"):
        ask(tmp_path / "s")
    server.join()


@pytest.mark.parametrize("ask", [by_client, by_shim])
def test_an_end_without_an_answer_is_an_error(
    listener: socket.socket, tmp_path: Path, ask: Ask
) -> None:
    def serve() -> None:
        listener.accept()[0].close()

    server = threading.Thread(target=serve)
    server.start()
    with pytest.raises((AgentUnreachableError, ShimError), match="agent-"):
        ask(tmp_path / "s")
    server.join()
