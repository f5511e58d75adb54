"""A user of the gateway's group and one outside of it abuse its socket; root is served meanwhile.

The daemon behind it is simulated: what it has of requests it sends back. CREDSPEC_ABUSE_SECONDS
says for how long, CREDSPEC_ABUSE_SEED repeats what was chosen by chance.
"""

from __future__ import annotations

import asyncio
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.abuse.abusers import SEED, Abuse, Abusers, seconds_of
from support.agent.agent_process import BIN, as_user

MEMBER, STRANGER = pwd.getpwnam("nobody"), pwd.getpwnam("games")
SECONDS = seconds_of(1 / 6)
MOST_MEMORY_KIB = 768 * 1024
MOST_LOG_BYTES = 64 * 1024
OK = b"HTTP/1.1 200 OK\r\nApi-Version: 1.43\r\nConnection: close\r\n\r\n"
UPGRADED = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes after the head, until the client ends or has sent the body."""
    with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        head = await reader.readuntil(b"\r\n\r\n")
        lines = [line.lower() for line in head.split(b"\r\n")]
        is_upgrade = b"upgrade: tcp" in lines
        left = next((int(x[15:]) for x in lines if x.startswith(b"content-length:")), 0)
        writer.write(UPGRADED if is_upgrade else OK)
        while (is_upgrade or left > 0) and (data := await reader.read(65536)):
            left -= len(data)
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.fixture
def simulated_daemon(directory: Path) -> Iterator[Path]:
    """The socket of a daemon in a thread of its own."""
    loop, path = asyncio.new_event_loop(), directory / "docker.sock"
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def end() -> None:
        server.close()
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    serving = asyncio.start_unix_server(echo, str(path), backlog=1024)
    server = asyncio.run_coroutine_threadsafe(serving, loop).result(60)
    yield path
    asyncio.run_coroutine_threadsafe(end(), loop).result(60)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@dataclass
class Gateway:
    """A gateway as a process of its own, and root as its client."""

    socket: Path
    log: Path
    process: subprocess.Popen[bytes]

    def answers(self) -> bool:
        """Return whether it answers at once, within a time that says something is held up."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(str(self.socket))
            connection.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
            return connection.recv(100).startswith(b"HTTP/1.1 200 ")

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def kibibytes(self, name: str) -> int:
        """Return what /proc/PID/status says of its memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(x.split()[1] for x in status.splitlines() if x.startswith(f"{name}:")))


@pytest.fixture
def directory() -> Iterator[Path]:
    # Not below pytest's own directory, which is closed to other users.
    made = Path(tempfile.mkdtemp(prefix="credspec-gateway-", dir="/var/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def gateway(directory: Path, simulated_daemon: Path) -> Iterator[Gateway]:
    listen, log = directory / "gateway.sock", directory / "gateway.log"
    (directory / "specs").mkdir()
    command = [BIN / "credspec", "docker-gateway", "--listen", listen]
    command += ["--upstream", simulated_daemon, "--spec-directory", directory / "specs"]
    with log.open("ab") as file:
        process = subprocess.Popen(
            [*command, "--group", str(MEMBER.pw_gid)], stdout=file, stderr=file
        )
    running = Gateway(listen, log, process)
    try:
        end = time.monotonic() + 60
        # It has a path, and takes connections, before it answers, or ends well by a signal.
        while True:
            with suppress(FileNotFoundError, ConnectionRefusedError):
                if running.answers():
                    break
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield running
    finally:
        process.terminate()
        assert process.wait(60) == 0


@pytest.mark.timeout(SECONDS + 300)
def test_users_who_abuse_the_gateway_before_a_simulated_daemon_stop_nobody_but_themselves(
    gateway: Gateway, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gateway.answers()
    before = gateway.descriptors()
    nowhere = Path("/nonexistent")
    abuses = [
        Abuse(user.pw_name, "support.abuse.gateway:GatewayAbuser", str(gateway.socket), nowhere)
        for user in (MEMBER, STRANGER)
    ]
    abusers = Abusers(abuses, as_user, directory / "abusers.log")
    latencies = []
    begin = time.monotonic()
    with abusers.running():
        while time.monotonic() < begin + SECONDS:
            asked = time.monotonic()
            assert gateway.answers()
            latencies.append(time.monotonic() - asked)
            assert gateway.process.poll() is None, gateway.log.read_text()[-5000:]
            time.sleep(0.05)
    most = gateway.kibibytes("VmHWM")
    with capsys.disabled():
        print(  # noqa: T201 - what it takes to repeat it, and what was found
            f"\nseed {SEED}, {time.monotonic() - begin:.0f} s, {abusers.killed} abusers killed; "
            f"root asked {len(latencies)} times, worst {max(latencies) * 1000:.0f} ms; at most "
            f"{most >> 10} MiB, log {gateway.log.stat().st_size >> 10} KiB",
            end=" ",
        )
    assert most < MOST_MEMORY_KIB
    assert gateway.log.stat().st_size < MOST_LOG_BYTES
    end = time.monotonic() + 60
    while gateway.descriptors() > before + 2:
        assert time.monotonic() < end, "descriptors are left over"
        time.sleep(0.5)
    assert gateway.answers()
    assert gateway.process.poll() is None
    log = gateway.log.read_text()
    assert "Traceback" not in log
    assert "internal error" not in log


def test_a_user_outside_of_the_group_cannot_connect_simulated(gateway: Gateway) -> None:
    program = f"import socket; socket.socket(socket.AF_UNIX).connect({str(gateway.socket)!r})"
    shown = subprocess.run(
        as_user(STRANGER.pw_name, ["/usr/bin/python3", "-c", program]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "PermissionError" in shown.stderr
    allowed = as_user(MEMBER.pw_name, ["/usr/bin/python3", "-c", program])
    assert subprocess.run(allowed, check=False).returncode == 0
