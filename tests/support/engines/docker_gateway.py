"""A dockerd of its own, with a network of none and no domain behind it."""

from __future__ import annotations

import http.client
import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

CREDSPEC = [sys.executable, "-c", "from credspec.cli.main import main; main()"]
SOURCE = Path(__file__).parents[3] / "src"
SAMPLE = Path(__file__).parents[2] / "unit/spec/samples/windows_powershell_5.json"
CONNECTED = "03"  # in /proc/net/unix
Docker = Callable[..., subprocess.CompletedProcess[str]]


class Daemon:
    """A dockerd in a directory, started and stopped with all that it leaves."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "docker.sock"
        self.config = directory / "daemon.json"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        with (self.directory / "dockerd.log").open("ab") as log, notify_socket() as ready:
            self.process = subprocess.Popen(
                [
                    "dockerd",
                    f"--data-root={self.directory}/data",
                    f"--exec-root={self.directory}/exec",
                    f"--pidfile={self.directory}/pid",
                    f"--host=unix://{self.socket}",
                    "--bridge=none",
                    "--iptables=false",
                    *options,
                ],
                env=os.environ | {"NOTIFY_SOCKET": ready.getsockname()},
                stdout=log,
                stderr=log,
            )
            wait_for(self.socket, self.process, log_file=self.directory / "dockerd.log")
            # Docker 26 answers its API a moment before it takes SIGHUP for anything but its end.
            assert b"READY=1" in ready.recv(4096)

    def reload(self) -> None:
        """Let dockerd read its configuration again, and wait until it has."""
        assert self.process is not None
        before = self.reloads()
        self.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 60
        while self.reloads() == before:
            assert time.monotonic() < end, (self.directory / "dockerd.log").read_text()[-2000:]
            time.sleep(0.1)

    def reloads(self) -> int:
        """How often it has read its configuration again, by its own events."""
        events = ["events", "--since=1h", f"--until={time.time():.9f}"]
        only = ["--filter=type=daemon", "--filter=event=reload"]
        return len(docker(self.socket, *events, *only).stdout.splitlines())

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(60)
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            mount = line.split()[4]
            if mount.startswith(f"{self.directory}/"):
                subprocess.run(["umount", "-l", mount], check=False)


@contextmanager
def notify_socket() -> Iterator[socket.socket]:
    """A socket of a service manager, to which a service says that it is ready."""
    with (
        tempfile.TemporaryDirectory() as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready,
    ):
        ready.bind(f"{directory}/notify")
        ready.settimeout(60)
        yield ready


def wait_for(path: Path, process: subprocess.Popen[bytes], *, log_file: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert process.poll() is None, log_file.read_text()[-2000:]
        with socket.socket(socket.AF_UNIX) as connection:
            if connection.connect_ex(str(path)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(log_file.read_text()[-2000:])


def docker(path: Path, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the docker command at a socket."""
    settings = {"capture_output": True, "text": True, "timeout": 60, **options}
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DOCKER_")}
    environment |= {"DOCKER_CONFIG": f"{path.parent}/client", "DOCKER_BUILDKIT": "0"}
    command = ["docker", "-H", f"unix://{path}", *arguments]
    return subprocess.run(command, check=False, env=environment, **settings)  # type: ignore[call-overload]


def run_argv(*options: str) -> list[str]:
    """The arguments of a `docker run` of the image `tiny`; what it runs is added to them."""
    return ["run", "--rm", "--network", "none", *options, "tiny"]


def kept(daemon: Daemon, container: str) -> dict[str, Any]:
    """Return what dockerd itself shows of a container, with what the gateway added."""
    found: dict[str, Any] = json.loads(docker(daemon.socket, "inspect", container).stdout)[0]
    return found


def carried(container: dict[str, Any], name: str = "spec") -> str | None:
    """Return what a container, as `kept` shows it, is created with."""
    # dockerd 20.10 speaks API 1.41, which has no annotations.
    variable = "CREDSPEC" if name == "spec" else f"CREDSPEC_{name.upper()}"
    annotations = container["HostConfig"].get("Annotations") or {}
    entries = [e.partition("=") for e in container["Config"]["Env"] or []]
    variables = {name: value for name, _, value in entries}
    return annotations.get(f"credspec.dev/{name}", variables.get(variable))


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, as Python's Docker clients do it: connections are kept."""

    def __init__(self, path: Path) -> None:
        super().__init__("docker")
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self.path))


def connections(path: Path) -> int:
    """Return how many clients the server behind a socket has.

    dockerd keeps those of an attached container until it next collects its garbage.
    """
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    return sum(line[5:] == [CONNECTED, line[6], str(path)] for line in lines if len(line) == 8)


def credspec(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the credspec command to its end."""
    return subprocess.run(
        [*CREDSPEC, *arguments],
        env=os.environ | {"PYTHONPATH": str(SOURCE)} | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@contextmanager
def running_gateway(listen: Path, upstream: Path, specs: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the gateway as a process."""
    log_file = listen.with_suffix(".log")
    places = ["--listen", str(listen), "--upstream", str(upstream), "--spec-directory", str(specs)]
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            # The usual limit, which is too low for many clients: the gateway raises it itself.
            ["prlimit", "--nofile=1024:", *CREDSPEC, "docker-gateway", *places],
            env=os.environ | {"PYTHONPATH": str(SOURCE)},
            stdout=log,
            stderr=log,
        )
    try:
        wait_for(listen, process, log_file=log_file)
        yield process
    finally:
        process.terminate()
        assert process.wait(60) == 0
        assert not listen.exists()


@contextmanager
def running_daemon(directory: Path, *options: str) -> Iterator[Daemon]:
    """Run a dockerd in `directory`."""
    daemon = Daemon(directory)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory / "data", ignore_errors=True)
        stack.callback(daemon.stop)
        daemon.start(*options)
        yield daemon


class _Numbered(io.RawIOBase):
    """Blocks that all differ, so that none can be missing or in another's place unnoticed."""

    def __init__(self, size: int) -> None:
        self._size, self._at = size, 0
        self._block = random.Random(1).randbytes(1 << 20)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        number, offset = divmod(self._at, len(self._block))
        block = number.to_bytes(8, "big") + self._block[8:]
        part = memoryview(block)[offset : offset + min(len(buffer), self._size - self._at)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


APPLETS = ["sh", "cat", "echo", "sleep", "true", "seq", "wc", "env", "head", "stty", "tty"]


def write_image(path: Path, mebibytes: int = 0) -> None:
    """Write a root file system of a static busybox, and a file of that size."""
    with tarfile.open(path, "w") as tar:
        if mebibytes:
            data = tarfile.TarInfo("data")
            data.size = mebibytes << 20
            tar.addfile(data, io.BufferedReader(_Numbered(data.size), 1 << 20))
        tar.add("/bin/busybox", "bin/busybox")
        for name in APPLETS:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
