"""The sockets of a container's KDC, opened in a network namespace of another process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from credspec.contract.errors import ShimError
from credspec.contract.kdc_sockets import serve_kdc

LEASE = "0" * 32


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[tuple[str, list[socket.socket], list[bytes]]]:
    """A socket at which one request and the sockets that came with it are taken."""
    path = str(tmp_path / "agent.sock")
    taken: list[socket.socket] = []
    requests: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                data, descriptors, _, _ = socket.recv_fds(connection, 4096, 4)
                requests.append(data)
                taken.extend(socket.socket(fileno=each) for each in descriptors)
                connection.sendall(b'HTTP/1.0 200 OK\r\n\r\n{"port": 1}')

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield path, taken, requests
        thread.join(10)
    for each in taken:
        each.close()


@pytest.fixture
def container() -> Iterator[int]:
    """A process with a network of its own."""
    command = ["unshare", "--net", "sh", "-c", "ip link set lo up; echo; exec sleep 600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="entering a network takes root")
def test_they_are_open_there_and_not_here(agent, container: int) -> None:
    path, taken, requests = agent
    own = Path("/proc/self/ns/net").readlink()
    serve_kdc(LEASE, path, f"/proc/{container}/ns/net")
    assert Path("/proc/self/ns/net").readlink() == own
    assert requests[0].startswith(f"POST /v1/leases/{LEASE}/kdc HTTP/1.0\r\n".encode())
    tcp, udp = taken
    assert (tcp.type, udp.type) == (socket.SOCK_STREAM, socket.SOCK_DGRAM)
    assert tcp.getsockname() == udp.getsockname()
    host, port = tcp.getsockname()
    assert host == "127.0.0.1"
    there = f"exec 3<>/dev/tcp/127.0.0.1/{port}"
    inside = ["nsenter", "-t", str(container), "-n", "bash", "-c", there]
    assert subprocess.run(inside, check=False).returncode == 0
    with socket.socket() as here:
        assert here.connect_ex((host, port)) != 0


# As with rootless engines: this network is owned by nobody whom the user namespace has rights over.
IN_A_USER_NAMESPACE = """
import subprocess, sys
from credspec.contract.kdc_sockets import serve_kdc
line = "ip link set lo up; echo; exec sleep 600"
there = subprocess.Popen(["unshare", "--net", "sh", "-c", line], stdout=subprocess.PIPE)
there.stdout.readline()
try:
    serve_kdc(sys.argv[1], sys.argv[2], f"/proc/{there.pid}/ns/net")
finally:
    there.kill()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="user namespaces may be forbidden to others")
def test_from_a_network_to_which_there_is_no_way_back(agent) -> None:
    path, taken, _ = agent
    program = [sys.executable, "-c", IN_A_USER_NAMESPACE, LEASE, path]
    shown = subprocess.run(["unshare", "--user", "--map-root-user", *program], check=False)
    assert shown.returncode == 0
    tcp, udp = taken
    assert tcp.getsockname() == udp.getsockname()


def test_in_the_own_network(agent) -> None:
    path, taken, _ = agent
    serve_kdc(LEASE, path, None)
    with socket.create_connection(taken[0].getsockname()):
        pass


def test_a_network_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ShimError) as refused:
        serve_kdc(LEASE, str(tmp_path / "agent.sock"), str(tmp_path / "none"))
    assert refused.value.code == "kdc-sockets"
    assert "use tickets=services" in refused.value.text


def test_no_agent(tmp_path: Path) -> None:
    with pytest.raises(ShimError) as refused:
        serve_kdc(LEASE, str(tmp_path / "agent.sock"), None)
    assert refused.value.code == "agent-unreachable"
