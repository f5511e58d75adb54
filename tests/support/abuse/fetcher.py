"""A user who does to the socket of credentials-fetcher's interface whatever it can think of."""

from __future__ import annotations

import json
import random
import socket
import struct
from pathlib import Path

from support.credentials_fetcher.http2_frames_by_hand import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    GREETING,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    PUSH,
    RST_STREAM,
    SERVICE,
    SETTINGS,
    WINDOW_UPDATE,
    begin_call,
    call_headers,
    fields,
    frame,
    literal,
    message,
    whole_call,
)

SPEC = {
    "CmsPlugins": ["ActiveDirectory"],
    "DomainJoinConfig": {"DnsName": "example.test", "MachineAccountName": "WebApp01"},
    "ActiveDirectoryConfig": {
        "GroupManagedServiceAccounts": [{"Name": "WebApp01", "Scope": "example.test"}]
    },
}
CALLS = (
    "AddKerberosLease",
    "AddNonDomainJoinedKerberosLease",
    "RenewNonDomainJoinedKerberosLease",
    "AddKerberosArnLease",
    "RenewKerberosArnLease",
    "DeleteKerberosLease",
    "HealthCheck",
    "Nothing",
)
MOST_HELD = 600


class FetcherAbuser:
    """Speaks HTTP/2 by hand: what gRPC's libraries would not send is what matters."""

    def __init__(self, path: str, directory: Path) -> None:
        del directory
        self._path = path
        self._held: list[socket.socket] = []

    def act(self, chance: random.Random) -> None:
        floods = [
            self._hold_idle,
            self._connect_and_leave,
            self._reset_at_once,
            self._send_control_frames,
            self._continue_headers,
        ]
        acts = [
            self._hold_the_beginning,
            self._hold_half_a_call,
            self._send_large_headers,
            self._send_large_messages,
            self._send_many_calls,
            self._flood_leases,
            self._flood_leases,
            self._read_nothing,
            self._send_junk,
        ]
        # One that always floods waits for its own turns, and gets nothing else done.
        chance.choice(floods if chance.random() < 0.1 else acts)(chance)
        most = chance.choice([0, 0, 0, 50, MOST_HELD])
        while len(self._held) > most:
            self._held.pop(chance.randrange(len(self._held))).close()

    def _connect(self, data: bytes = b"") -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(2)
        try:
            connection.connect(self._path)
            connection.sendall(data)
        except OSError:
            connection.close()
            raise
        return connection

    def _send(self, *parts: bytes, read: bool = True) -> None:
        """Send as much as is taken within two seconds a part, and read what comes."""
        with self._connect(GREETING) as connection:
            for part in parts:
                connection.sendall(part)
                if read:
                    connection.setblocking(False)
                    try:
                        while connection.recv(65536):
                            pass
                    except BlockingIOError:
                        pass
                    connection.settimeout(2)

    def _hold_idle(self, chance: random.Random) -> None:
        for _ in range(chance.randrange(300)):
            self._held.append(self._connect(chance.choice([b"", GREETING])))

    def _hold_the_beginning(self, chance: random.Random) -> None:
        whole = GREETING + begin_call(1)
        for _ in range(chance.randrange(50)):
            self._held.append(self._connect(whole[: chance.randrange(len(whole))]))

    def _hold_half_a_call(self, chance: random.Random) -> None:
        for _ in range(chance.randrange(20)):
            half = message(b"x" * 4_000_000)[: chance.randrange(60_000)]
            parts = [half[at : at + 16384] for at in range(0, len(half), 16384)]
            streams = range(1, chance.choice([2, 40, 400]), 2)
            data = b"".join(
                begin_call(stream, chance.choice(CALLS))
                + b"".join(frame(DATA, part, stream=stream) for part in parts)
                for stream in streams
            )
            self._held.append(self._connect(GREETING))
            self._held[-1].sendall(data)

    def _connect_and_leave(self, chance: random.Random) -> None:
        for _ in range(chance.randrange(1500)):
            self._connect(chance.choice([b"", PREFACE])).close()

    def _reset_at_once(self, chance: random.Random) -> None:
        code = struct.pack(">I", 8)
        rapid = [
            begin_call(stream, chance.choice(CALLS)) + frame(RST_STREAM, code, stream=stream)
            for stream in range(1, 8000, 2)
        ]
        self._send(*(b"".join(rapid[at : at + 100]) for at in range(0, len(rapid), 100)))

    def _send_control_frames(self, chance: random.Random) -> None:
        kinds = [
            frame(PING, bytes(8)),
            frame(PING, bytes(8), flags=ACK),
            frame(SETTINGS),
            frame(SETTINGS, struct.pack(">HI", 4, chance.getrandbits(31)) * 100),
            frame(SETTINGS, struct.pack(">HI", 1, chance.getrandbits(32))),
            frame(SETTINGS, flags=ACK),
            frame(WINDOW_UPDATE, struct.pack(">I", 1)),
            frame(WINDOW_UPDATE, struct.pack(">I", 0x7FFFFFFF)),
            frame(PRIORITY, bytes(5), stream=chance.randrange(1, 99)),
            frame(RST_STREAM, bytes(4), stream=chance.randrange(1, 99)),
            frame(GOAWAY, bytes(8)),
            frame(PUSH, bytes(8), stream=2),
            frame(chance.randrange(10, 256), bytes(chance.randrange(100))),
            frame(DATA, b"", stream=1),
        ]
        flood = chance.choice(kinds) * 500
        self._send(*[flood] * chance.randrange(1, 20), read=chance.random() < 0.5)

    def _continue_headers(self, chance: random.Random) -> None:
        part = chance.choice([b"", literal(b"a", b"b") * 100, bytes(16384)])
        self._send(
            begin_call(1, flags=0),
            *[frame(CONTINUATION, part, stream=1) * 50] * chance.randrange(1, 40),
        )

    def _send_large_headers(self, chance: random.Random) -> None:
        name = f"{SERVICE}/HealthCheck"
        blocks = [
            call_headers(name, literal(b"x" * 7000, b"y" * 7000)),
            call_headers(name, *[literal(b"a", b"b")] * 3000),
            call_headers(name, literal(b"c" * 100, b"d" * 3900, indexed=True), b"\xbe" * 10_000),
            call_headers("/" + "p" * 15_000),
            call_headers(name, *[literal(b":path", b"/x")] * 100),
            b"\xff" * 5000,
        ]
        frames = [
            frame(HEADERS, chance.choice(blocks), flags=END_HEADERS | END_STREAM, stream=stream)
            for stream in range(1, 200, 2)
        ]
        self._send(*frames)

    def _send_large_messages(self, chance: random.Random) -> None:
        size = chance.choice([1000, 60_000, 1_000_000, 4_000_000])
        document = chance.choice(
            [
                b"[" * min(size, 60_000),
                b"1" * min(size, 60_000),
                b"[" + b"[]," * (min(size, 60_000) // 3) + b"0]",
                json.dumps({str(n): n for n in range(min(size, 60_000) // 12)}).encode(),
                b'"' + b"\\ud800" * (min(size, 60_000) // 6) + b'"',
            ]
        )
        messages = [
            b"\x0a\x00" * (size // 2),
            fields(*[(1, document)] * max(1, min(100, size // len(document)))),
            fields((1, b"x" * size)),
            fields((1, json.dumps(SPEC).encode()), (2, b"u" * size), (3, b"p" * size)),
            fields(*[(99, b"")] * (size // 4)),
            b"\x0b" * size,
            fields(*[(1, b"arn:aws:s3:::b/k#t/" + b"m" * 60)] * (size // 90 + 1)),
        ]
        self._send(whole_call(1, chance.choice(CALLS), chance.choice(messages)))

    def _send_many_calls(self, chance: random.Random) -> None:
        self._held.append(self._connect(GREETING))
        data = [whole_call(stream, chance.choice(CALLS), b"") for stream in range(1, 400, 2)]
        self._held[-1].sendall(b"".join(data))

    def _flood_leases(self, chance: random.Random) -> None:
        accounts = [f"WebApp0{number}" for number in range(1, 4)] + ["Nobody01", "Forbidden01"]
        documents = [
            (1, json.dumps(SPEC).replace("WebApp01", chance.choice(accounts)).encode())
            for _ in range(chance.choice([1, 3, 100]))
        ]
        given = [(2, b"reader1"), (3, b"not the password"), (4, b"example.test")]
        lease = fields((1, f"{chance.getrandbits(80):020x}".encode()))
        access = [(2, b"AKIA"), (3, b"secret"), (4, b"token"), (5, b"eu-west-1")]
        arns = [(1, f"arn:aws:s3:::bucket/key#{chance.getrandbits(40):x}/m".encode())]
        calls = [
            ("AddKerberosLease", fields(*documents)),
            ("AddNonDomainJoinedKerberosLease", fields(*documents[:1], *given)),
            ("RenewNonDomainJoinedKerberosLease", fields(*[(n - 1, v) for n, v in given])),
            ("DeleteKerberosLease", lease),
            ("AddKerberosArnLease", fields(*arns, *access)),
        ]
        name, data = chance.choice(calls)
        frames = [whole_call(stream, name, data) for stream in range(1, 40, 2)]
        self._held.append(self._connect(GREETING))
        self._held[-1].sendall(b"".join(frames))
        if chance.random() < 0.7:
            self._held[-1].settimeout(chance.random() * 2)
            while self._held[-1].recv(65536):
                pass

    def _read_nothing(self, chance: random.Random) -> None:
        for _ in range(chance.randrange(20)):
            connection = self._connect(GREETING)
            self._held.append(connection)
            connection.sendall(frame(PING, bytes(8)) * 1000)

    def _send_junk(self, chance: random.Random) -> None:
        junk = [
            b"GET / HTTP/1.1\r\n\r\n",
            bytes(100_000),
            PREFACE + chance.randbytes(3000),
            GREETING + chance.randbytes(3000),
            GREETING + frame(DATA, bytes(100), stream=0),
            GREETING + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + bytes(200_000),
            b"\x16\x03\x01" + chance.randbytes(500),
        ]
        self._connect(chance.choice(junk)).close()
