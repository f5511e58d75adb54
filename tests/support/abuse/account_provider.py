"""Clients that do to the account provider's port whatever they can think of."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
from pathlib import Path

MOST_HELD = 400
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"  # the beginning of a ClientHello
GOOD = b"GET /provider HTTP/1.1\r\nHost: localhost\r\nobject: reader\r\n\r\n"


class AccountProviderAbuser:
    """Speaks TLS, or nearly; in the directory are certificates, as `NAME.crt` and `NAME.key`.

    `foreign` is of another authority, `host2` may ask for a secret of its own, and no other.
    """

    def __init__(self, path: str, directory: Path) -> None:
        host, _, port = path.rpartition(":")
        self._address = host, int(port)
        self._contexts = {name: _context(directory, name) for name in ("", "foreign", "host2")}
        self._held: list[socket.socket] = []

    def act(self, chance: random.Random) -> None:
        acts = [
            self._hold_idle,
            self._hold_half_a_handshake,
            self._send_slowly,
            self._connect_and_leave,
            self._shake_hands_and_leave,
            self._ask_without_permission,
            self._hold_half_a_head,
            self._send_odd_request,
            self._send_junk,
        ]
        chance.choice(acts)(chance)
        most = chance.choice([0, 0, 50, MOST_HELD])
        while len(self._held) > most:
            self._held.pop(chance.randrange(len(self._held))).close()

    def _connect(self, chance: random.Random) -> socket.socket:
        connection = socket.socket()
        connection.settimeout(2)
        try:
            connection.bind((f"127.0.0.{chance.randrange(2, 8)}", 0))
            connection.connect(self._address)
        except OSError:
            connection.close()
            raise
        return connection

    def _hold(self, chance: random.Random, data: bytes) -> None:
        self._held.append(self._connect(chance))
        self._held[-1].sendall(data)

    def _shaken(self, chance: random.Random, name: str) -> ssl.SSLSocket:
        connection = self._connect(chance)
        try:
            return self._contexts[name].wrap_socket(connection, server_hostname="localhost")
        except OSError:
            connection.close()
            raise

    def _ask(self, chance: random.Random, name: str, data: bytes) -> None:
        with self._shaken(chance, name) as connection:
            connection.sendall(data)
            while connection.recv(65536):
                pass

    def _hold_idle(self, chance: random.Random) -> None:
        for _ in range(chance.randrange(300)):
            self._hold(chance, b"")

    def _hold_half_a_handshake(self, chance: random.Random) -> None:
        for _ in range(chance.randrange(200)):
            self._hold(chance, HELLO[: chance.randrange(1, len(HELLO) + 1)])

    def _send_slowly(self, chance: random.Random) -> None:
        for connection in self._held:
            with contextlib.suppress(OSError):
                connection.send(chance.choice([HELLO[:1], b"\0"]), socket.MSG_DONTWAIT)

    def _connect_and_leave(self, chance: random.Random) -> None:
        for _ in range(chance.randrange(500)):
            connection = self._connect(chance)
            connection.send(chance.choice([b"", HELLO]) or HELLO[:1])
            connection.close()

    def _shake_hands_and_leave(self, chance: random.Random) -> None:
        for _ in range(chance.randrange(30)):
            with contextlib.suppress(OSError):
                self._shaken(chance, chance.choice(["", "foreign", "host2"])).close()

    def _ask_without_permission(self, chance: random.Random) -> None:
        for _ in range(chance.randrange(20)):
            with contextlib.suppress(OSError):
                self._ask(chance, chance.choice(["", "foreign", "host2"]), GOOD)

    def _hold_half_a_head(self, chance: random.Random) -> None:
        for _ in range(chance.randrange(60)):
            self._held.append(self._shaken(chance, "host2"))
            self._held[-1].sendall(GOOD[: chance.randrange(len(GOOD))])

    def _send_odd_request(self, chance: random.Random) -> None:
        requests = [
            GOOD * 100,
            GOOD.replace(b"reader", b"../reader"),
            GOOD.replace(b"reader", b"x" * 100_000),
            GOOD.replace(b"\r\n\r\n", b"\r\nobject: other\r\n\r\n"),
            GOOD.replace(b"\r\n\r\n", b"\r\nContent-Length: 99999\r\n\r\n"),
            b"PUT" + GOOD[3:],
            bytes(100_000),
            b"\r\n" * 50_000,
            chance.randbytes(3000),
        ]
        self._ask(chance, "host2", chance.choice(requests))

    def _send_junk(self, chance: random.Random) -> None:
        junk = [
            b"GET / HTTP/1.1\r\n\r\n",
            bytes(100_000),
            HELLO + chance.randbytes(2000),
            b"\x16\x03\x01\xff\xff" + bytes(70_000),
            b"\x15\x03\x01\x00\x02\x02\x28",
            b"\x80\x2e\x01\x00\x02",
        ]
        with self._connect(chance) as connection:
            connection.sendall(chance.choice(junk))
            connection.recv(1000)


def _context(directory: Path, name: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if name:
        context.load_cert_chain(directory / f"{name}.crt", directory / f"{name}.key")
    return context
