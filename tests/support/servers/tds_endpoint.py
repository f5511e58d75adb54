"""A login endpoint of the SQL Server protocol (TDS) that really accepts Kerberos.

Not a SQL Server: it answers PRELOGIN, takes LOGIN7 with a GSSAPI token, checks it with the keytab,
and answers every query with one row that holds the name GSSAPI accepted. Nothing is encrypted, so
clients must allow that. Message layouts are those of [MS-TDS].

Run under Debian's own Python with python3-gssapi:
``/usr/bin/python3 tds_endpoint.py ADDRESS PORT KEYTAB PRINCIPAL``.
"""

from __future__ import annotations

import contextlib
import re
import socketserver
import struct
import sys
from typing import Final

import gssapi

BATCH, RPC, ATTENTION, TRANSACTION = 0x01, 0x03, 0x06, 0x0E
REPLY, LOGIN7, SSPI, PRELOGIN = 0x04, 0x10, 0x11, 0x12
NOT_SUPPORTED: Final = 2
INTEGRATED_SECURITY: Final = 0x80
COLLATION: Final = bytes.fromhex("0904d00034")
"""SQL_Latin1_General_CP1_CI_AS, as clients expect it."""
VERSION: Final = bytes.fromhex("74000004")
"""TDS 7.4, which SQL Server 2012 and all later ones speak."""
PACKET: Final = 4096


class RefusedError(Exception):
    """A logon that is not taken; holds SQL Server's number and words."""


def refuse_untrusted() -> RefusedError:
    """Return what SQL Server says of a ticket or token it does not take."""
    return RefusedError(
        18452,
        "Login failed. The login is from an untrusted domain and cannot be used with Integrated "
        "authentication.",
    )


class Session(socketserver.StreamRequestHandler):
    """One client's connection."""

    def handle(self) -> None:
        """Take the logon, then answer queries until the client goes."""
        kind, _ = self.receive()
        if kind != PRELOGIN:
            return
        self.send(prelogin_reply())
        try:
            name = self.log_on()
        except RefusedError as refusal:
            number, text = refusal.args
            print("refused:", number, flush=True)  # noqa: T201
            with contextlib.suppress(ConnectionError):  # the client may not want to know
                self.send(error(number, text) + done(0xFD, status=0x02))
            return
        print("accepted:", name, flush=True)  # noqa: T201
        while True:
            kind, data = self.receive()
            if kind is None:
                return
            self.send(answer(kind, data, name))

    def log_on(self) -> str:
        """Return the principal that GSSAPI accepted."""
        kind, login = self.receive()
        token = integrated_token(login) if kind == LOGIN7 else b""
        if not token:
            user = field(login, 40).decode("utf-16-le") if kind == LOGIN7 else ""
            raise RefusedError(18456, f"Login failed for user '{user}'.")
        context = gssapi.SecurityContext(creds=self.server.credentials, usage="accept")  # type: ignore[attr-defined]
        while True:
            try:
                reply = context.step(token)
                complete = context.complete  # also raises what step() has put off
            except gssapi.exceptions.GSSError as failure:
                print("GSSAPI:", failure, flush=True)  # noqa: T201
                raise refuse_untrusted() from None
            if complete:
                break
            self.send(sspi(reply or b""))
            kind, token = self.receive()
            if kind != SSPI:
                raise refuse_untrusted()
        name = str(context.initiator_name)
        if reply:
            # A message of its own: Microsoft's driver takes no other token beside it.
            self.send(sspi(reply))
        self.send(accepted())
        return name

    def receive(self) -> tuple[int | None, bytes]:
        """Return the next message and its type; None when the client has gone."""
        data = b""
        while True:
            header = self.rfile.read(8)
            if len(header) < 8:
                return None, b""
            kind, status, length = struct.unpack(">BBH", header[:4])
            data += self.rfile.read(length - 8)
            if status & 1:
                return kind, data

    def send(self, data: bytes) -> None:
        """Send a reply, in packets."""
        parts = [data[i : i + PACKET - 8] for i in range(0, len(data), PACKET - 8)]
        for number, part in enumerate(parts, 1):
            last = number == len(parts)
            self.wfile.write(struct.pack(">BBHHBB", REPLY, last, len(part) + 8, 0, number, 0))
            self.wfile.write(part)


def prelogin_reply() -> bytes:
    """Version 16, no encryption, default instance, no thread, no MARS."""
    options = [(0, bytes([16, 0, 0, 0, 0, 0])), (1, bytes([NOT_SUPPORTED])), (2, b"\0"), (4, b"\0")]
    offset = 5 * len(options) + 1
    table = values = b""
    for number, value in options:
        table += struct.pack(">BHH", number, offset + len(values), len(value))
        values += value
    return table + b"\xff" + values


def field(login: bytes, position: int) -> bytes:
    """Return a variable field of LOGIN7 whose length counts characters."""
    offset, length = struct.unpack_from("<HH", login, position)
    return login[offset : offset + 2 * length]


def integrated_token(login: bytes) -> bytes:
    """Return the GSSAPI token of LOGIN7, empty if the client did not ask for integrated logon."""
    if not login[25] & INTEGRATED_SECURITY:
        return b""
    offset, length = struct.unpack_from("<HH", login, 78)
    if length == 0xFFFF:
        (length,) = struct.unpack_from("<I", login, 90)
    return login[offset : offset + length]


def answer(kind: int, data: bytes, name: str) -> bytes:
    """Answer any query with the name, and whatever asks for no rows with its completion."""
    if kind == ATTENTION:
        return done(0xFD, status=0x20)
    # By its bytes: a procedure's parameters need not start at an even place.
    wants_row = re.search(rb"s\0e\0l\0e\0c\0t\0", data, re.IGNORECASE) is not None
    rows = result(name) if kind in (BATCH, RPC) and wants_row else b""
    if kind == RPC:
        status = struct.pack("<Bi", 0x79, 0)
        return rows + (done(0xFF, status=0x11, rows=1) if rows else b"") + status + done(0xFE)
    return rows + done(0xFD, status=0x10 if rows else 0, rows=1 if rows else 0)


def result(name: str) -> bytes:
    """One column, one row."""
    value = name.encode("utf-16-le")
    column = struct.pack("<IH", 0, 1) + b"\xe7" + struct.pack("<H", 512) + COLLATION
    metadata = b"\x81" + struct.pack("<H", 1) + column + characters("name")
    return metadata + b"\xd1" + struct.pack("<H", len(value)) + value


def accepted() -> bytes:
    """What a server says after a logon it took."""
    size = str(PACKET)
    body = b"\x01" + VERSION + characters("Microsoft SQL Server") + bytes([16, 0, 0, 0])
    return (
        change(1, characters("master") + characters("master"))
        + change(7, b"\x05" + COLLATION + b"\0")
        + change(2, characters("us_english") + characters(""))
        + b"\xad"
        + struct.pack("<H", len(body))
        + body
        + change(4, characters(size) + characters(size))
        + done(0xFD)
    )


def change(kind: int, values: bytes) -> bytes:
    """An ENVCHANGE token."""
    return b"\xe3" + struct.pack("<HB", len(values) + 1, kind) + values


def sspi(token: bytes) -> bytes:
    """Wrap a GSSAPI token for the client."""
    return b"\xed" + struct.pack("<H", len(token)) + token


def error(number: int, text: str) -> bytes:
    """An ERROR token of severity 14."""
    body = struct.pack("<IBBH", number, 1, 14, len(text)) + text.encode("utf-16-le")
    body += characters("TDS") + characters("") + struct.pack("<I", 1)
    return b"\xaa" + struct.pack("<H", len(body)) + body


def done(token: int, *, status: int = 0, rows: int = 0) -> bytes:
    """A DONE, DONEPROC or DONEINPROC token."""
    return struct.pack("<BHHQ", token, status, 0, rows)


def characters(text: str) -> bytes:
    """A B_VARCHAR."""
    return bytes([len(text)]) + text.encode("utf-16-le")


class Endpoint(socketserver.ThreadingTCPServer):
    """The listener; `credentials` are those of its one service principal."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: tuple[str, int], keytab: str, principal: str) -> None:
        name = gssapi.Name(principal, gssapi.NameType.kerberos_principal)
        self.credentials = gssapi.Credentials(
            name=name, usage="accept", store={"keytab": f"FILE:{keytab}"}
        )
        super().__init__(address, Session)


if __name__ == "__main__":
    listen, port, keytab_path, service = sys.argv[1:]
    with Endpoint((listen, int(port)), keytab_path, service) as endpoint:
        endpoint.serve_forever()
