"""What the Docker gateway costs, against asking directly, in the same run: ``make bench``.

At a real dockerd, which is what the targets are about, and at an upstream of a few lines that only
moves memory: there both ends already use all of two processors, so whatever stands between them
shows in full.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from measure import Sample, figure, interleaved, row
from support.engines.docker_gateway import docker, running_daemon, running_gateway, write_image

MEBIBYTES = 1024
CONNECTIONS = 500
CHUNK = 1 << 20
LEAST_SHARE = 0.9
MOST_LATENCY = 1.0

# Answers /stream with a gigabyte, takes in whatever else comes with a length, and says OK.
UPSTREAM = """
import socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen(64)
block, blocks = bytes(1 << 20), int(sys.argv[2])
buffer = bytearray(1 << 20)
def serve(client):
    head = b""
    while b"\\r\\n\\r\\n" not in head:
        head += client.recv(65536)
    head, _, body = head.partition(b"\\r\\n\\r\\n")
    fields = dict(line.split(b": ") for line in head.split(b"\\r\\n")[1:])
    left = int(fields.get(b"Content-Length", 0)) - len(body)
    while left:
        left -= client.recv_into(buffer)
    stream = head.startswith(b"GET /stream")
    length = blocks << 20 if stream else 2
    client.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % length)
    for _ in range(blocks if stream else 0):
        client.sendall(block)
    if not stream:
        client.sendall(b"OK")
while True:
    client, _ = server.accept()
    with client:
        serve(client)
"""


def exchange(path: Path, request: bytes, body: Path | None = None) -> int:
    """Ask on a connection of its own, and return how long the answer is."""
    buffer, received = bytearray(CHUNK), 0
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(request)
        if body is not None:
            with body.open("rb") as file:
                while data := file.read(CHUNK):
                    connection.sendall(data)
        while length := connection.recv_into(buffer):
            if not received and not buffer.startswith(b"HTTP/1.1 200 "):
                raise SystemExit(bytes(buffer[:length]).decode())
            received += length
    return received


def get(path: Path, target: str) -> int:
    """Ask for what a target has."""
    return exchange(path, f"GET {target} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n".encode())


def load(path: Path, tar: Path) -> int:
    """Give what a file holds, as `docker load` does."""
    head = (
        "POST /images/load?quiet=1 HTTP/1.1\r\nHost: d\r\nConnection: close\r\n"
        f"Content-Type: application/x-tar\r\nContent-Length: {tar.stat().st_size}\r\n\r\n"
    )
    return exchange(path, head.encode(), tar)


def compare(direct: Path, gateway: Path, ask: Callable[[Path], object], runs: int) -> list[Sample]:
    """Return what it takes through the gateway, and directly."""
    found = interleaved({"gateway": lambda: ask(gateway), "direct": lambda: ask(direct)}, runs)
    return [found["gateway"], found["direct"]]


def throughput(what: str, samples: list[Sample], least: float | None = LEAST_SHARE) -> None:
    """Print the row of a stream."""
    through, direct = samples
    share = direct.median / through.median
    target = f"{share:.2f} of direct throughput" + (f", >= {least}" if least else "")
    row(what, through, direct, target, met=least is None or share >= least)


def latency(what: str, samples: list[Sample]) -> None:
    """Print the row of a small request."""
    through, direct = samples
    more = through.median - direct.median
    row(what, through, direct, f"{more:+.2f} ms, <= +{MOST_LATENCY} ms", met=more <= MOST_LATENCY)


@contextmanager
def memory_upstream(path: Path) -> Iterator[None]:
    """Run the upstream of a few lines."""
    with subprocess.Popen([sys.executable, "-c", UPSTREAM, str(path), str(MEBIBYTES)]) as process:
        try:
            while not path.exists():
                time.sleep(0.01)
            yield
        finally:
            process.terminate()


def at_memory(directory: Path) -> None:
    """Measure at the upstream of a few lines."""
    direct, gateway = directory / "memory.sock", directory / "before-memory.sock"
    source = directory / "zeros"
    with source.open("wb") as file:
        file.truncate(MEBIBYTES << 20)
    with memory_upstream(direct), running_gateway(gateway, direct, directory):
        down = compare(direct, gateway, lambda path: get(path, "/stream"), 10)
        throughput("gateway, 1 GiB down, memory to memory", down, None)
        up = compare(direct, gateway, lambda path: load(path, source), 10)
        throughput("gateway, 1 GiB up, memory to memory", up, None)
        latency(
            "gateway, a small request, at memory",
            compare(direct, gateway, lambda path: get(path, "/_ping"), 500),
        )


def at_dockerd(directory: Path) -> None:
    """Measure at a dockerd with an image of a gigabyte."""
    gateway, tar = directory / "gateway.sock", directory / "big.tar"
    with (
        running_daemon(directory) as daemon,
        running_gateway(gateway, daemon.socket, directory),
    ):
        write_image(tar, MEBIBYTES)
        docker(daemon.socket, "import", str(tar), "big", timeout=600)
        docker(daemon.socket, "save", "-o", str(tar), "big", timeout=600)
        save = compare(daemon.socket, gateway, lambda path: get(path, "/images/big/get"), 5)
        throughput("gateway, docker save of 1 GiB", save)
        loaded = compare(daemon.socket, gateway, lambda path: load(path, tar), 10)
        throughput("gateway, docker load of 1 GiB", loaded)
        for target in ("/_ping", "/version"):
            asked = compare(daemon.socket, gateway, lambda path, t=target: get(path, t), 500)
            latency(f"gateway, GET {target}", asked)
        many_connections(daemon.socket, gateway)


def at_once(path: Path) -> tuple[float, int]:
    """Hold many connections, ask on each; return the milliseconds and how many had no answer."""
    request = b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
    started, failures = time.perf_counter(), 0
    with ExitStack() as stack:
        connections = [
            stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(CONNECTIONS)
        ]
        for connection in connections:
            connection.settimeout(30)
            connection.connect(str(path))
        for connection in connections:
            connection.sendall(request)
        for connection in connections:
            try:
                failures += not connection.recv(CHUNK).startswith(b"HTTP/1.1 200 ")
            except OSError:
                failures += 1
    return (time.perf_counter() - started) * 1000, failures


def many_connections(direct: Path, gateway: Path) -> None:
    """Print the row of many connections."""
    before, _ = at_once(direct)
    taken, failures = at_once(gateway)
    note = f"{taken:.0f} ms, directly {before:.0f} ms"
    what = f"gateway, {CONNECTIONS} connections at once"
    figure(what, f"{failures} failed", note, "0", met=failures == 0)


def main() -> None:
    """Print the rows."""
    with ExitStack() as stack:
        # Not in /tmp, which may be memory.
        directory = Path(tempfile.mkdtemp(prefix="credspec-bench-", dir="/var/tmp"))
        stack.callback(shutil.rmtree, directory)
        at_memory(directory)
        at_dockerd(directory)


if __name__ == "__main__":
    main()
