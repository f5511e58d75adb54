"""Users who do to a socket whatever they can think of, each in a process of its own.

An `Abuser` does one thing to a socket; `HttpAbuser` is that of the agent's HTTP API. Another socket
has another class with the same one method: name it as MODULE:CLASS in `Abuse`. `Abusers` starts
them, kills some in the middle of what they do, and starts them again, as long as a block runs.

    python -m support.abuse.abusers MODULE:CLASS SOCKET DIRECTORY SEED

runs one of them until it is killed; `DIRECTORY` is the user's runtime directory.
"""

from __future__ import annotations

import array
import contextlib
import importlib
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_TOGETHER_SECONDS = 120.0

SEED = int(os.environ.get("CREDSPEC_ABUSE_SEED", "0")) or random.SystemRandom().randrange(10**6)
"""What is chosen by chance; printed by the tests."""


def seconds_of(share: float) -> float:
    """Return how long a test runs that has a share of the time of all abuse tests."""
    told = os.environ.get("CREDSPEC_ABUSE_SECONDS")
    return float(told) if told else share * _TOGETHER_SECONDS


class Abuser(Protocol):
    """One who abuses a socket, in a process with a user's rights."""

    def __init__(self, path: str, directory: Path) -> None:
        """`path` is the socket's, or HOST:PORT; in `directory` the user may do anything."""

    def act(self, chance: random.Random) -> None:
        """Do one thing; it may raise OSError, and should take seconds at most."""


@dataclass(frozen=True)
class Abuse:
    """A user who abuses a socket: `abuser` is MODULE:CLASS of an `Abuser`."""

    user: str
    abuser: str
    path: str
    directory: Path


class Abusers:
    """Runs abusers, and kills each now and then."""

    def __init__(
        self,
        abuses: Sequence[Abuse],
        command_of_user: Callable[[str, list[str]], list[str]],
        log: Path,
        seed: int = SEED,
    ) -> None:
        self._abuses = abuses
        self._command_of_user = command_of_user
        self._log = log
        self._chance = random.Random(seed)
        self._running: dict[Abuse, subprocess.Popen[bytes]] = {}
        self._ended = threading.Event()
        self.killed = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let them do what they do while the block runs; afterwards none is left."""
        for abuse in self._abuses:
            self._start(abuse)
        killer = threading.Thread(target=self._kill_some, daemon=True)
        killer.start()
        try:
            yield
        finally:
            self._ended.set()
            killer.join()
            for process in self._running.values():
                process.kill()
                process.wait()

    def _start(self, abuse: Abuse) -> None:
        program = [sys.executable, "-m", "support.abuse.abusers"]
        program += [abuse.abuser, abuse.path, str(abuse.directory)]
        command = self._command_of_user(abuse.user, [*program, str(self._chance.randrange(10**9))])
        with self._log.open("ab") as log:
            self._running[abuse] = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
                cwd="/",
            )

    def _kill_some(self) -> None:
        while not self._ended.wait(self._chance.uniform(1, 6)):
            abuse = self._chance.choice(self._abuses)
            process = self._running[abuse]
            process.send_signal(self._chance.choice([signal.SIGKILL, signal.SIGTERM]))
            process.wait()
            self.killed += 1
            self._start(abuse)


class HttpAbuser:
    """Abuses the agent's HTTP API on its Unix socket."""

    MOST_HELD = 900

    def __init__(self, path: str, directory: Path) -> None:
        self._path = path
        self._directory = directory
        self._leases = directory / "credspec" / "leases"
        self._held: list[socket.socket] = []
        self._made: list[str] = []

    def act(self, chance: random.Random) -> None:
        acts = [
            self._hold_idle,
            self._hold_half_a_head,
            self._hold_half_a_body,
            self._send_odd_body,
            self._pipeline,
            self._connect_and_leave,
            self._flood_leases,
            self._make_odd_lease,
            self._touch_leases_of_others,
            self._read_nothing,
            self._pass_descriptors,
            self._send_junk,
        ]
        chance.choice(acts)(chance)
        while len(self._held) > self.MOST_HELD or (self._held and chance.random() < 0.3):
            self._held.pop(chance.randrange(len(self._held))).close()

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(2)
        try:
            connection.connect(self._path)
        except OSError:
            connection.close()
            raise
        return connection

    def _send(self, data: bytes, chance: random.Random, *, hold: bool = False) -> bytes:
        connection = self._connect()
        answer = b""
        try:
            connection.sendall(data)
            if not hold:
                answer = connection.recv(65536)
            elif chance.random() < 0.3:
                connection.shutdown(socket.SHUT_WR)
        finally:
            if hold:
                self._held.append(connection)
            else:
                connection.close()
        return answer

    def _hold_idle(self, chance: random.Random) -> None:
        for _ in range(chance.randrange(300)):
            self._held.append(self._connect())

    def _hold_half_a_head(self, chance: random.Random) -> None:
        heads = (b"G", b"GET /healthz HTTP/1.1\r\n", _head("PUT", "/v1/leases/x") + b"X-")
        for _ in range(chance.randrange(50)):
            self._send(chance.choice(heads), chance, hold=True)

    def _hold_half_a_body(self, chance: random.Random) -> None:
        length = chance.choice([b"10", b"200000", b"262144", b"999999999999"])
        head = _head("PUT", _lease_path(chance)) + b"Content-Length: " + length + b"\r\n\r\n"
        for _ in range(chance.randrange(30)):
            self._send(head + b"{" * chance.randrange(10), chance, hold=True)
        for connection in self._held[-30:]:
            with contextlib.suppress(OSError):
                connection.send(b" ", socket.MSG_DONTWAIT)

    def _send_odd_body(self, chance: random.Random) -> None:
        size = chance.choice([1, 1000, 100_000, 262_100])
        bodies = [
            b"1" * size,
            b"[" * size,
            b"[" + b"[]," * (size // 3) + b"0]",
            b'{"a":' * (size // 5),
            b'"' * size,
            b"\xff" * size,
            b"\0" * size,
            ('{"spec": "raw://' + "\\ud800" * (size // 6) + '"}').encode(),
            json.dumps({str(n): n for n in range(size // 10)}).encode(),
            self._body(chance, spec=_odd_spec(chance, size)),
        ]
        charset = chance.choice(["utf-8", "punycode", "utf-16", "utf-7", "idna", "no"])
        encoding = chance.choice([b"", b"", b"Content-Encoding: gzip\r\n"])
        body = chance.choice(bodies)
        self._send(
            _head("PUT", _lease_path(chance))
            + f"Content-Type: application/json; charset={charset}\r\n".encode()
            + encoding
            + b"Content-Length: %d\r\n\r\n" % len(body)
            + body,
            chance,
        )

    def _body(self, chance: random.Random, **values: object) -> bytes:
        body = {
            "spec": "file://one.json",
            "container": "x" * chance.choice([1, 64, 128]),
            "runtime_state": str(self._directory / "state" / str(chance.randrange(10**6))),
            "uid": os.getuid(),
            "gid": os.getgid(),
        }
        return json.dumps(body | values).encode()

    def _pipeline(self, chance: random.Random) -> None:
        paths = ("/healthz", "/v1/leases", "/metrics", "/v1/openapi.json", "/v1/identities")
        requests = [
            f"GET {chance.choice(paths)} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            for _ in range(chance.randrange(1, 1000))
        ]
        connection = self._connect()
        self._held.append(connection)
        connection.send(b"".join(requests), socket.MSG_DONTWAIT)

    def _connect_and_leave(self, chance: random.Random) -> None:
        for _ in range(chance.randrange(1500)):
            self._connect().close()

    def _make_directory(self, lease: str) -> Path:
        directory = self._leases / lease
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return directory

    def _flood_leases(self, chance: random.Random) -> None:
        for _ in range(chance.randrange(1, 80)):
            lease = f"{chance.getrandbits(128):032x}"
            self._make_directory(lease)
            answer = self._send(_put(lease, self._body(chance)), chance, hold=chance.random() < 0.2)
            if b" 200 " in answer[:20]:
                self._made.append(lease)
        for lease in self._made:
            if chance.random() < 0.5:
                self._send(_head("DELETE", f"/v1/leases/{lease}") + b"\r\n", chance)
                shutil.rmtree(self._leases / lease, ignore_errors=True)

    def _make_odd_lease(self, chance: random.Random) -> None:
        lease = f"{chance.getrandbits(128):032x}"
        directory = self._make_directory(lease)
        state = self._directory / "state" / lease
        state.parent.mkdir(exist_ok=True)
        odd = [
            lambda: os.mkfifo(directory / "krb5cc"),
            (directory / "krb5cc").mkdir,
            lambda: (directory / "krb5cc").symlink_to("/etc/passwd"),
            lambda: directory.chmod(0),
            lambda: (directory.rmdir(), os.mkfifo(directory)),
            lambda: (directory.rmdir(), directory.symlink_to("/etc")),
            lambda: os.mkfifo(state),
            lambda: state.symlink_to("/root"),
            lambda: os.mkfifo(directory.with_name(f"{lease}.lock")),
            lambda: [(directory / f"f{n}").touch() for n in range(200)],
        ]
        with contextlib.suppress(OSError):
            chance.choice(odd)()
        states = [
            str(state),
            f"{directory}.lock",
            "/",
            "/" + "a" * 300,
            "/" + "a/" * 2040,
            "/root",
            str(self._directory) + "/../0",
            "/proc/1/root/root",
            "/\0",
            "/\n\x1b[31m",
        ]
        values = {
            "runtime_state": chance.choice(states),
            "container": chance.choice(["c", "x" * 250_000, "\n\x1b]0;", "\u202e", "\ud800"]),
            "uid": chance.choice([os.getuid(), 0, 2**32, -1, 10**3000]),
            "keytab": chance.choice([False, True, "yes"]),
        }
        chosen = {key: values[key] for key in values if chance.random() < 0.5}
        self._send(_put(lease, self._body(chance, **chosen)), chance)

    def _touch_leases_of_others(self, chance: random.Random) -> None:
        lease = f"{chance.randrange(1, 30):032x}"
        for request in (
            _head("DELETE", f"/v1/leases/{lease}") + b"\r\n",
            _head("GET", f"/v1/leases/{lease}") + b"\r\n",
            _put(lease, self._body(chance)),
        ):
            self._send(request, chance)

    def _read_nothing(self, chance: random.Random) -> None:
        for _ in range(chance.randrange(40)):
            connection = self._connect()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            self._held.append(connection)
            connection.send(b"GET /v1/leases HTTP/1.1\r\nHost: x\r\n\r\n" * 3, socket.MSG_DONTWAIT)

    def _pass_descriptors(self, chance: random.Random) -> None:
        connection = self._connect()
        self._held.append(connection)
        with open(os.devnull, "rb") as file:  # noqa: PTH123 - a descriptor is all that is wanted
            rights = array.array("i", [file.fileno()] * 50)
            head = _head("PUT", _lease_path(chance))
            connection.sendmsg([head], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])

    def _send_junk(self, chance: random.Random) -> None:
        junk = [
            b"\0" * 5000,
            b"\r\n" * 50_000,
            b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
            b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n" + b"z" * 200_000,
            _head("PUT", _lease_path(chance)) + b"Transfer-Encoding: chunked\r\n\r\nffffffff\r\n",
            _head("PUT", _lease_path(chance))
            + b"Transfer-Encoding: chunked\r\n\r\n"
            + b"1\r\n{\r\n" * 30_000,
            _head("PUT", _lease_path(chance))
            + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n",
            chance.randbytes(3000),
        ]
        self._send(chance.choice(junk), chance)


def _head(method: str, path: str) -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n".encode()


def _put(lease: str, body: bytes) -> bytes:
    return _head("PUT", f"/v1/leases/{lease}") + b"Content-Length: %d\r\n\r\n" % len(body) + body


def _lease_path(chance: random.Random) -> str:
    return chance.choice(
        [f"/v1/leases/{chance.getrandbits(128):032x}", "/v1/leases/..", "/v1/leases/%00", "/x"]
    )


def _odd_spec(chance: random.Random, size: int) -> str:
    entries = [{"Name": f"a{n}", "Scope": "b"} for n in range(min(size, 60_000) // 30)]
    domain = chance.choice(["example.test", f"d{chance.randrange(10**6)}.invalid", "a." * 200])
    documents: list[object] = [
        [0] * (min(size, 60_000) // 2),
        {"a": [{}] * (min(size, 60_000) // 3)},
        {
            "CmsPlugins": ["ActiveDirectory"],
            "DomainJoinConfig": {"DnsName": domain, "MachineAccountName": "a0"},
            "ActiveDirectoryConfig": {"GroupManagedServiceAccounts": entries},
        },
    ]
    texts = [json.dumps(document, separators=(",", ":")) for document in documents]
    texts += ["[" * min(size, 60_000), "1" * min(size, 60_000)]
    prefix = chance.choice(["raw://", "RAW://", "raw:/", " raw://", "file://", "registry://", ""])
    return prefix + chance.choice(texts)


def main() -> None:
    """Abuse until killed."""
    name, path, directory, seed = sys.argv[1:]
    module, _, kind = name.partition(":")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    abuser: Abuser = getattr(importlib.import_module(module), kind)(path, Path(directory))
    chance = random.Random(int(seed))
    while True:
        begin = time.monotonic()
        # Refused, cut off, or told to come again: it goes on with something else.
        with contextlib.suppress(OSError):
            abuser.act(chance)
        if time.monotonic() < begin + 0.01:
            time.sleep(0.01)


if __name__ == "__main__":
    main()
