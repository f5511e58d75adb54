"""Much at once through the gateway: a gigabyte, 500 clients, and clients that hang or are slow."""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from support.engines.docker_gateway import (
    Daemon,
    Docker,
    UnixConnection,
    connections,
    docker,
    run_argv,
    write_image,
)

PATIENCE = 60.0
MEBIBYTES = 1024
MOST_MEMORY = 150 << 20

Gateway = subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def daemon_directory() -> Iterator[Path]:
    # Not in /tmp, which may be memory.
    with tempfile.TemporaryDirectory(prefix="credspec-load-", dir="/var/tmp") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def big(gateway: Docker, daemon: Daemon) -> Iterator[str]:
    """The name of an image of a gigabyte, which came through the gateway."""
    tar = daemon.directory / "big.tar"
    write_image(tar, MEBIBYTES)
    imported = gateway("import", str(tar), "big", timeout=300)
    tar.unlink()
    assert imported.returncode == 0, imported.stderr
    yield "big"
    docker(daemon.socket, "rmi", "-f", "big")


def most_memory(process: Gateway) -> int:
    """Return the most memory that a process has ever had at once, in bytes."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise AssertionError


def descriptors(process: Gateway) -> int:
    return sum(1 for _ in Path(f"/proc/{process.pid}/fd").iterdir())


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def dial(path: Path, data: bytes = b"") -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(PATIENCE)
    connection.connect(str(path))
    connection.sendall(data)
    return connection


def receive_until(connection: socket.socket, text: bytes) -> bytes:
    received = b""
    while text not in received:
        data = connection.recv(65536)
        assert data, received
        received += data
    return received


def receive_all(connection: socket.socket) -> bytes:
    received = b""
    while data := connection.recv(65536):
        received += data
    return received


@pytest.mark.timeout(900)  # for slow disks
def test_a_gigabyte_is_saved_and_loaded_byte_for_byte(
    gateway: Docker, gateway_process: Gateway, daemon: Daemon, big: str
) -> None:
    """An image's id is a digest of all that is in it, and looked at when it is loaded."""
    before = docker(daemon.socket, "images", "--no-trunc", "-q", big).stdout
    assert before.startswith("sha256:")
    saved = daemon.directory / "saved.tar"
    assert gateway("save", "-o", str(saved), big, timeout=300).returncode == 0
    assert saved.stat().st_size > MEBIBYTES << 20
    docker(daemon.socket, "rmi", big)
    loaded = gateway("load", "-i", str(saved), timeout=300)
    saved.unlink()
    assert loaded.returncode == 0, loaded.stderr
    assert docker(daemon.socket, "images", "--no-trunc", "-q", big).stdout == before
    assert most_memory(gateway_process) < MOST_MEMORY


def test_a_client_that_does_not_read_costs_no_memory(
    gateway_process: Gateway, gateway_socket: Path, daemon: Daemon, big: str
) -> None:
    request = f"GET /images/{big}/get HTTP/1.1\r\nHost: docker\r\n\r\n".encode()
    before = connections(daemon.socket)
    with dial(gateway_socket, request) as slow:
        assert receive_until(slow, b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
        assert slow.recv(1)
        time.sleep(3)  # enough for a gateway that would take it all
        assert most_memory(gateway_process) < MOST_MEMORY
        received = 0
        while received < 64 << 20:
            data = slow.recv(1 << 20)
            assert data, "it goes on as soon as the client does"
            received += len(data)
    assert eventually(lambda: connections(daemon.socket) <= before)


def test_five_hundred_clients_at_once(
    gateway: Docker, gateway_process: Gateway, gateway_socket: Path, daemon: Daemon
) -> None:
    assert eventually(lambda: connections(gateway_socket) == 0)
    before, before_daemon = descriptors(gateway_process), connections(daemon.socket)
    request = b"GET /events HTTP/1.1\r\nHost: docker\r\n\r\n"
    with ExitStack() as stack:
        watching = [stack.enter_context(dial(gateway_socket, request)) for _ in range(500)]
        for connection in watching:
            assert receive_until(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
        assert connections(gateway_socket) == 500
        ran = gateway("run", "-d", "--name=c1", "--network=none", "tiny", "echo", "meanwhile")
        assert ran.returncode == 0, ran.stderr
        assert gateway("wait", "c1").stdout == "0\n"
        assert gateway("logs", "c1").stdout == "meanwhile\n"
        for connection in watching:
            receive_until(connection, b'"Action":"start"')
    assert eventually(lambda: connections(gateway_socket) == 0)
    assert eventually(lambda: connections(daemon.socket) <= before_daemon)
    assert eventually(lambda: descriptors(gateway_process) <= before)


@contextmanager
def dribbling(connections: list[socket.socket]) -> Iterator[None]:
    """Send a byte a second on each connection, and never a whole request."""
    stop = threading.Event()

    def dribble() -> None:
        while not stop.wait(1):
            for connection in connections:
                with suppress(OSError):  # the gateway gives it up after a minute
                    connection.send(b"x")

    thread = threading.Thread(target=dribble)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_clients_that_hang_hinder_nobody(
    gateway: Docker, gateway_process: Gateway, gateway_socket: Path, daemon: Daemon
) -> None:
    assert eventually(lambda: connections(gateway_socket) == 0)
    before, before_daemon = descriptors(gateway_process), connections(daemon.socket)
    half_a_head = b"GET /version HTTP/1.1\r\nHo"
    half_a_body = b"POST /v1.41/containers/create HTTP/1.1\r\nContent-Length: 1000\r\n\r\n{"
    with ExitStack() as stack:
        hanging = [
            [stack.enter_context(dial(gateway_socket, data)) for _ in range(50)]
            for data in (b"", half_a_head, half_a_body, b"GET /")
        ]
        stack.enter_context(dribbling(hanging[-1]))
        assert eventually(lambda: connections(gateway_socket) == 200)
        for _ in range(10):
            assert gateway("version").returncode == 0
        # dockerd hears of whole requests only.
        assert eventually(lambda: connections(daemon.socket) <= before_daemon)
        ran = gateway(*run_argv(), "echo", "meanwhile")
        assert ran.stdout == "meanwhile\n", ran.stderr
        # Such a one that goes on within its minute is served as any other.
        late = stack.enter_context(dial(gateway_socket, half_a_head))
        assert gateway("version").returncode == 0
        late.sendall(b"st: docker\r\n\r\n")
        assert receive_all(late).startswith(b"HTTP/1.1 200 ")
    assert eventually(lambda: descriptors(gateway_process) <= before)


@pytest.mark.parametrize("target", ["/version", "/images/tiny/get"])
def test_a_client_that_has_ended_its_side_gets_its_answer(
    gateway: Docker, gateway_socket: Path, target: str
) -> None:
    request = f"GET {target} HTTP/1.1\r\nHost: docker\r\n\r\n".encode()
    with dial(gateway_socket, request) as connection:
        connection.shutdown(socket.SHUT_WR)
        answer = receive_all(connection)
    # Newer daemons take the end for the client's, as they do if asked directly.
    assert answer.startswith(b"HTTP/1.1 200 ") or b'"context canceled"' in answer


def test_what_is_too_large_is_refused_and_others_go_on(
    gateway: Docker, gateway_socket: Path
) -> None:
    for fields, status in (
        ({f"X-{n}": "x" * 1000 for n in range(80)}, 431),
        ({"Content-Length": str(17 << 20)}, 413),
    ):
        connection = UnixConnection(gateway_socket)
        connection.request("POST", "/v1.41/containers/create", headers=fields)
        answer = connection.getresponse()
        assert answer.status == status
        assert "too large" in json.loads(answer.read())["message"]
        connection.close()
    assert gateway("version").returncode == 0
