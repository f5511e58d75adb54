"""A key distribution center that is simulated: it asks for preauthentication as it was told to.

It answers an AS-REQ (RFC 4120 5.4.1) with KDC_ERR_PREAUTH_REQUIRED or another error, and a
PA-ETYPE-INFO2 (5.2.7.5) of the test's choosing, which nobody signs, and keeps what it was asked.
"""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Self

PA_ENC_TIMESTAMP: Final = 2
_PA_ETYPE_INFO2: Final = 19
_PREAUTH_REQUIRED: Final = 25
_LENGTH_BYTES: Final = 4
_FORWARDABLE: Final = 0x40000000


@dataclass(frozen=True)
class AsRequest:
    """An AS-REQ: its message type, preauthentication types, encryption types, realm and options."""

    kind: int
    padata: tuple[int, ...]
    enctypes: tuple[int, ...]
    realm: str
    options: int = 0

    @property
    def is_forwardable(self) -> bool:
        """Whether it asks for a forwardable ticket (RFC 4120 5.4.1, KDCOptions)."""
        return bool(self.options & _FORWARDABLE)


@dataclass
class SimulatedKdc:
    """Answers on a port of an address, by TCP and by UDP.

    `offers` are encryption type, salt and s2kparams of the PA-ETYPE-INFO2, in its order; `realm` is
    the realm it says it is; `refuses` is the error that a request with a timestamp gets, `asks` the
    one that others get.
    """

    realm: str
    offers: Sequence[tuple[int, str, bytes | None]] = ((18, "salt", None),)
    asked: list[AsRequest] = field(default_factory=list)
    address: str = "127.0.0.1"
    port: int = 0
    refuses: int = _PREAUTH_REQUIRED
    asks: int = _PREAUTH_REQUIRED

    @property
    def timestamps(self) -> list[AsRequest]:
        """The requests that had an encrypted timestamp: something made of a password."""
        return [request for request in self.asked if PA_ENC_TIMESTAMP in request.padata]

    def __enter__(self) -> Self:
        kdc = self

        class Stream(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                length = int.from_bytes(self.rfile.read(_LENGTH_BYTES), "big")
                answer = kdc.answer(self.rfile.read(length))
                self.wfile.write(len(answer).to_bytes(_LENGTH_BYTES, "big") + answer)

        class Datagram(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                data, back = self.request
                back.sendto(kdc.answer(data), self.client_address)

        socketserver.ThreadingTCPServer.allow_reuse_address = True
        self._servers: list[socketserver.BaseServer] = []
        stream = socketserver.ThreadingTCPServer((self.address, self.port), Stream)
        stream.daemon_threads = True
        self.port = stream.server_address[1]
        self._servers.append(stream)
        self._servers.append(socketserver.UDPServer((self.address, self.port), Datagram))
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def answer(self, message: bytes) -> bytes:
        """Keep a request and return KDC_ERR_PREAUTH_REQUIRED (RFC 4120 5.9.1), or a refusal."""
        request = read_as_request(message)
        self.asked.append(request)
        has_timestamp = PA_ENC_TIMESTAMP in request.padata
        number = self.refuses if has_timestamp else self.asks
        now = datetime.now(UTC)
        offers = b"".join(
            der(
                0x30,
                der(0xA0, integer(enctype)),
                der(0xA1, der(0x1B, salt.encode())),
                b"" if params is None else der(0xA2, der(0x04, params)),
            )
            for enctype, salt, params in self.offers
        )
        methods = der(
            0x30,
            _padata(_PA_ETYPE_INFO2, der(0x30, offers)),
            _padata(PA_ENC_TIMESTAMP, b""),
        )
        server = der(0x30, der(0x1B, b"krbtgt"), der(0x1B, self.realm.encode()))
        return der(
            0x7E,
            der(
                0x30,
                der(0xA0, integer(5)),
                der(0xA1, integer(30)),
                der(0xA4, der(0x18, now.strftime("%Y%m%d%H%M%SZ").encode())),
                der(0xA5, integer(now.microsecond)),
                der(0xA6, integer(number)),
                der(0xA9, der(0x1B, self.realm.encode())),
                der(0xAA, der(0x30, der(0xA0, integer(2)), der(0xA1, server))),
                der(0xAC, der(0x04, methods)),
            ),
        )


@dataclass
class Listener:
    """Takes TCP connections on a port of an address and keeps what comes; answers nothing."""

    address: str = "127.0.0.1"
    port: int = 0
    received: list[bytes] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._socket = socket.create_server((self.address, self.port))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(1)
                try:
                    self.received.append(connection.recv(65536))
                except OSError:
                    self.received.append(b"")


def read_as_request(message: bytes) -> AsRequest:
    """Read what a test wants to know of an AS-REQ (or TGS-REQ, whose kind is 13)."""
    ((_, content),) = _members(message)
    ((_, content),) = _members(content)
    fields = dict(_members(content))
    body = dict(_members(dict(_members(fields[0xA4]))[0x30]))
    padata = [
        _number(dict(_members(each))[0xA1])
        for _, each in (_members(dict(_members(fields[0xA3]))[0x30]) if 0xA3 in fields else ())
    ]
    enctypes = [int.from_bytes(v, "big", signed=True) for _, v in _members(_inner(body[0xA8]))]
    realm = _inner(body[0xA2]).decode()
    # The first byte of a bit string says how many bits are unused.
    options = int.from_bytes(_inner(body[0xA0])[1:5], "big")
    return AsRequest(_number(fields[0xA2]), tuple(padata), tuple(enctypes), realm, options)


def der(tag: int, *content: bytes) -> bytes:
    """Return a value of ASN.1 in DER (X.690)."""
    whole = b"".join(content)
    size = len(whole)
    if size < 0x80:
        return bytes([tag, size]) + whole
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + whole


def integer(value: int) -> bytes:
    """Return an INTEGER."""
    return der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _padata(kind: int, value: bytes) -> bytes:
    return der(0x30, der(0xA1, integer(kind)), der(0xA2, der(0x04, value)))


def _members(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        tag, length, at = data[at], data[at + 1], at + 2
        if length & 0x80:
            count = length & 0x7F
            length, at = int.from_bytes(data[at : at + count], "big"), at + count
        yield tag, data[at : at + length]
        at += length


def _inner(data: bytes) -> bytes:
    ((_, content),) = _members(data)
    return content


def _number(data: bytes) -> int:
    return int.from_bytes(_inner(data), "big", signed=True)
