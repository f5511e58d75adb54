"""Frames of HTTP/2 made by hand, such as no gRPC library would send. Nothing here is the project's.

RFC 9113 4.1 (frames), 6 (their types); RFC 7541 6.2.2 (literal header fields without indexing).
"""

from __future__ import annotations

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
SERVICE = "/credentialsfetcher.CredentialsFetcherService"


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    length = struct.pack(">I", len(payload))[1:]
    return length + bytes([kind, flags]) + struct.pack(">I", stream) + payload


GREETING = PREFACE + frame(SETTINGS)


def text(value: bytes) -> bytes:
    """A string of HPACK, without Huffman's code."""
    if len(value) < 127:
        return bytes([len(value)]) + value
    rest, length = len(value) - 127, b"\x7f"
    while rest >= 128:
        length += bytes([rest % 128 + 128])
        rest //= 128
    return length + bytes([rest]) + value


def literal(name: bytes, value: bytes, *, indexed: bool = False) -> bytes:
    return (b"\x40" if indexed else b"\x00") + text(name) + text(value)


def call_headers(path: str, *more: bytes) -> bytes:
    """The header block of a call: method POST and scheme http are in the static table."""
    return b"".join(
        [
            b"\x83\x86",
            b"\x04" + text(path.encode()),
            b"\x01" + text(b"localhost"),
            literal(b"content-type", b"application/grpc"),
            literal(b"te", b"trailers"),
            *more,
        ]
    )


def begin_call(stream: int, name: str = "HealthCheck", *, flags: int = END_HEADERS) -> bytes:
    return frame(HEADERS, call_headers(f"{SERVICE}/{name}"), flags=flags, stream=stream)


def message(data: bytes) -> bytes:
    """A message of gRPC: not compressed, its length, itself."""
    return b"\0" + struct.pack(">I", len(data)) + data


def whole_call(stream: int, name: str, data: bytes) -> bytes:
    body = message(data)
    parts = [body[at : at + 16384] for at in range(0, len(body), 16384)]
    frames = [frame(DATA, part, stream=stream) for part in parts[:-1]]
    frames.append(frame(DATA, parts[-1], flags=END_STREAM, stream=stream))
    return begin_call(stream, name) + b"".join(frames)


def fields(*values: tuple[int, bytes]) -> bytes:
    """A message of protocol buffers: fields by number, each a string or bytes."""
    return b"".join(varint(number << 3 | 2) + varint(len(data)) + data for number, data in values)


def varint(value: int) -> bytes:
    data = bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    return bytes([*data, value])
