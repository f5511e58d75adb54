"""A user who does to the Docker gateway's socket whatever it can think of."""

from __future__ import annotations

import contextlib
import json
import random
import socket
from pathlib import Path

MOST_HELD = 900
MEBIBYTE = 1 << 20
OPTION = '"HostConfig":{"SecurityOpt":["credentialspec=%s"]}'
REFERENCES = (
    "file://one.json",
    "file://../../etc/shadow",
    "file://" + "a" * 5000,
    "raw://{}",
    "raw://" + "[" * 60_000,
    "registry://x",
    "",
)
UPGRADE = b"Connection: Upgrade\r\nUpgrade: tcp\r\n"


class GatewayAbuser:
    """Speaks HTTP by hand: what Docker's clients would not send is what matters."""

    def __init__(self, path: str, directory: Path) -> None:
        del directory
        self._path = path
        self._held: list[socket.socket] = []

    def act(self, chance: random.Random) -> None:
        floods = [self._hold_idle, self._connect_and_leave, self._hold_half_a_head]
        acts = [
            self._hold_half_a_body,
            self._create_with_odd_body,
            self._create_with_huge_body,
            self._send_odd_chunks,
            self._send_odd_lengths,
            self._pipeline,
            self._upgrade,
            self._read_nothing,
            self._send_junk,
        ]
        # One that always floods waits for its own turns, and gets nothing else done.
        chance.choice(floods if chance.random() < 0.05 else acts)(chance)
        most = chance.choice([0, 0, 0, 100, MOST_HELD])
        while len(self._held) > most:
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

    def _hold(self, data: bytes) -> None:
        """Send, read nothing, and stay."""
        self._held.append(self._connect())
        self._held[-1].sendall(data)

    def _ask(self, *parts: bytes) -> None:
        """Send, read the beginning of an answer, and leave."""
        with self._connect() as connection:
            with contextlib.suppress(BrokenPipeError):  # it may have been answered already
                for part in parts:
                    connection.sendall(part)
            connection.recv(65536)

    def _hold_idle(self, chance: random.Random) -> None:
        for _ in range(chance.randrange(300)):
            self._hold(b"")

    def _hold_half_a_head(self, chance: random.Random) -> None:
        whole = _create(b"", b"Content-Length: 0")
        for _ in range(chance.randrange(50)):
            self._hold(whole[: chance.randrange(len(whole))])

    def _hold_half_a_body(self, chance: random.Random) -> None:
        length = chance.choice([10, MEBIBYTE, 16 * MEBIBYTE, 17 * MEBIBYTE, 10**30])
        for _ in range(chance.randrange(30)):
            body = _odd_body(chance)[: chance.randrange(60_000)]
            self._hold(_create(body, b"Content-Length: %d" % length))
        for connection in self._held[-30:]:
            with contextlib.suppress(OSError):
                connection.send(b" ", socket.MSG_DONTWAIT)

    def _create_with_odd_body(self, chance: random.Random) -> None:
        for _ in range(chance.randrange(1, 20)):
            self._ask(_create(_odd_body(chance)))

    def _create_with_huge_body(self, chance: random.Random) -> None:
        """Have the option found, or looked for, in as much as a body may have."""
        option = (
            (OPTION % chance.choice(REFERENCES)).encode() if chance.random() < 0.7 else b'"a":1'
        )
        size = chance.choice([900_000, 2 * MEBIBYTE, 15 * MEBIBYTE, 16 * MEBIBYTE])
        filler = chance.choice(
            [b'"x":[' + b"[]," * (size // 3) + b"0]", b'"x":"' + b"c" * size + b'"']
        )
        body = b"{%b,%b}" % ((option, filler) if chance.random() < 0.5 else (filler, option))
        expect = chance.choice([b"Expect: 100-continue", b"X: y"])
        self._ask(_create(body, b"Content-Length: %d" % len(body), expect))

    def _send_odd_chunks(self, chance: random.Random) -> None:
        body = _odd_body(chance)
        bodies = [
            b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
            b"".join(b"1;%b\r\n%c\r\n" % (b"e" * 20, byte) for byte in body[:20_000]),
            b"ffffffff\r\n" + bytes(60_000),
            b"-1\r\n\r\n",
            b"0\r\n" + b"T: u\r\n" * 20_000,
            b"5\r\nabcdefgh",
            b"1" * 100_000,
            b"5;" + b"x" * 100_000,
        ]
        fields = [b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked"]
        self._ask(_create(chance.choice(bodies), chance.choice(fields)))

    def _send_odd_lengths(self, chance: random.Random) -> None:
        fields = [
            (b"Content-Length: -1",),
            (b"Content-Length: 2", b"Content-Length: 3"),
            (b"Content-Length: 2", b"Transfer-Encoding: chunked"),
            (b"Content-Length: " + b"9" * 5000,),
            ("Content-Length: \u00b2".encode("latin-1"),),
            (b"Content-Length : 2",),
            (b"Transfer-Encoding:\x0bchunked",),
        ]
        self._ask(_create(b"{}", *chance.choice(fields)))

    def _pipeline(self, chance: random.Random) -> None:
        ping = b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n"
        request = chance.choice([ping, _create(b"{}"), _create(_with_option(chance))])
        self._held.append(self._connect())
        self._held[-1].send(request * chance.randrange(1, 300), socket.MSG_DONTWAIT)

    def _upgrade(self, chance: random.Random) -> None:
        targets = (b"/containers/x/attach?stream=1", b"/session", b"/containers/create")
        for _ in range(chance.randrange(1, 30)):
            head = b"POST %b HTTP/1.1\r\nHost: d\r\n%b\r\n" % (chance.choice(targets), UPGRADE)
            self._hold(head + chance.randbytes(chance.choice([0, 1000, 100_000])))
            if chance.random() < 0.3:
                self._held[-1].shutdown(socket.SHUT_WR)

    def _connect_and_leave(self, chance: random.Random) -> None:
        for _ in range(chance.randrange(800)):
            self._connect().close()

    def _read_nothing(self, chance: random.Random) -> None:
        """Have much echoed, and do not read it."""
        for _ in range(chance.randrange(20)):
            head = b"POST /session HTTP/1.1\r\nHost: d\r\n" + UPGRADE + b"\r\n"
            self._held.append(self._connect())
            self._held[-1].send(head + bytes(500_000), socket.MSG_DONTWAIT)

    def _send_junk(self, chance: random.Random) -> None:
        junk = [
            bytes(5000),
            b"\r\n" * 50_000,
            b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
            b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET /_ping HTTP/1.1\r\nHost: d\r\n folded\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(1000),
            b"POST /v999.999/containers/create HTTP/1.1\r\n\r\n",
            b"POST /containers/create?" + b"name=x&" * 5000 + b" HTTP/1.1\r\n\r\n",
            chance.randbytes(3000),
        ]
        self._ask(chance.choice(junk))


def _create(body: bytes, *fields: bytes) -> bytes:
    lines = [
        b"POST /v1.43/containers/create HTTP/1.1",
        b"Host: d",
        *(fields or [b"Content-Length: %d" % len(body)]),
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _with_option(chance: random.Random) -> bytes:
    return b'{"Image":"x",%b}' % (OPTION % chance.choice(REFERENCES)).encode()


def _odd_body(chance: random.Random) -> bytes:
    size = chance.choice([1, 1000, 100_000, 900_000])
    option = (OPTION % chance.choice(REFERENCES)).encode()
    twice = b'{"HostConfig":{},"HostConfig":{"SecurityOpt":["credentialspec=x"]},"hostconfig":1}'
    annotations = {"credspec.dev/spec": "file://one.json", "credspec.dev/sepc": "x"}
    bodies = [
        _with_option(chance),
        b"[" * size,
        b'{"a":' * (size // 5),
        b"1" * size,
        b'{"a":' + b"1" * size + b"," + option + b"}",
        b"{%b," % option + b"," * size + b"}",
        b"{" + b'"k":0,' * (size // 6) + option + b"}",
        b'{"a":"' + b"\\ud800" * (size // 6) + b'",' + option + b"}",
        b"{" + option + b"}" + b" " * size,
        b"\xff\xfe{" + option + b"}",
        option * 100,
        twice,
        b'{"HostConfig":{"SecurityOpt":' + b"[" * 5000 + b'"credentialspec=x"',
        b'{"HostConfig":{"SecurityOpt":["credential\\u0073pec=file://one.json"]}}',
        json.dumps({"HostConfig": {"Annotations": annotations}}).encode(),
        json.dumps({"Labels": {f"credspec.dev/{n}": "x" for n in range(size // 30)}}).encode(),
    ]
    return chance.choice(bodies)
