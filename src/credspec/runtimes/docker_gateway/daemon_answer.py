"""An answer of dockerd's that is read whole, or as far as memory allows, before it is sent on."""

from __future__ import annotations

import asyncio
import re
import zlib
from dataclasses import dataclass
from typing import Final

from credspec.runtimes.docker_gateway.body_memory import Share
from credspec.runtimes.docker_gateway.connection import Connection
from credspec.runtimes.docker_gateway.http_head import END, MAX_HEAD_BYTES, AnswerHead

MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
"""A larger one is sent on as it is: no container with a credential spec has so much to tell."""
_MAX_LINE_BYTES: Final = 8 * 1024
_CHUNK_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{1,16}")
_READ_BYTES: Final = 64 * 1024
_OK: Final = 200


@dataclass(slots=True)
class DaemonAnswer:
    """An answer: `body` is None if it is not to be changed.

    `received` is then what was read of it, byte for byte, and the rest is still to come.
    """

    head: AnswerHead
    body: bytearray | None
    received: bytearray

    def with_body(self, body: bytes | bytearray) -> bytearray:
        """Return an answer with another body, of which the length is known."""
        head = self.head.with_fields(
            Content_Length=str(len(body)), Transfer_Encoding=None, Content_Encoding=None
        )
        return bytearray(head.pack()) + body


async def read_answer(daemon: Connection, share: Share) -> DaemonAnswer:
    """Read an answer to a request that asked for JSON, and for the connection's end.

    Raises:
        EOFError: the daemon ended within it.
        asyncio.LimitOverrunError: a head without an end.
        MalformedHeadError: not a head.
        ValueError: chunks that are none.
        NoMemoryLeftError: there is no memory for it in time.
    """
    raw = await daemon.read_until(END, MAX_HEAD_BYTES)
    head = AnswerHead.unpack(bytes(raw))
    if not _is_json(head):
        return DaemonAnswer(head, None, raw)
    reader = _Reader(daemon, share, raw)
    codings = [value.lower() for value in head.values("Transfer-Encoding")]
    if codings == ["chunked"]:
        body = await reader.chunks()
    elif codings:
        body = None
    elif lengths := head.values("Content-Length"):
        body = await reader.exactly(int(lengths[0]))
    else:
        body = await reader.to_end()
    if body is not None and head.values("Content-Encoding") not in ([], ["identity"]):
        body = await _decompressed(body, share)
    return DaemonAnswer(head, body, reader.received)


def _is_json(head: AnswerHead) -> bool:
    types = head.values("Content-Type")
    encodings = [value.lower() for value in head.values("Content-Encoding")]
    return (
        head.status == _OK
        and [value.partition(";")[0].strip().lower() for value in types] == ["application/json"]
        and encodings in ([], ["gzip"], ["deflate"], ["identity"])
    )


class _Reader:
    """Reads a body, and keeps what came in, in case it turns out to be too large.

    Each method returns the body, or None if it is.
    """

    def __init__(self, daemon: Connection, share: Share, head: bytearray) -> None:
        self._daemon, self._share = daemon, share
        self.received = head

    async def exactly(self, length: int) -> bytearray | None:
        if length > MAX_ANSWER_BYTES:
            return None
        await self._share.grow_to(2 * length)
        body = await self._daemon.read_exactly(length)
        self.received += body
        return body

    async def chunks(self) -> bytearray | None:
        body = bytearray()
        while True:
            line = await self._line()
            digits = line.partition(b";")[0].strip()
            if _CHUNK_SIZE.fullmatch(digits) is None:
                raise ValueError("not a chunk")
            size = int(digits, 16)
            if len(body) + size > MAX_ANSWER_BYTES or len(self.received) > 2 * MAX_ANSWER_BYTES:
                return None
            if size == 0:
                while await self._line() != b"\r\n":
                    pass  # trailers mean nothing here
                return body
            await self._share.grow_to(2 * (len(body) + size))
            part = await self._daemon.read_exactly(size + 2)
            self.received += part
            body += part[:-2]

    async def to_end(self) -> bytearray | None:
        body = bytearray()
        while len(body) <= MAX_ANSWER_BYTES:
            await self._share.grow_to(2 * (len(body) + _READ_BYTES))
            part = await self._daemon.read_some()
            if not part:
                return body
            body += part
            self.received += part
        return None

    async def _line(self) -> bytearray:
        line = await self._daemon.read_until(b"\r\n", _MAX_LINE_BYTES)
        self.received += line
        return line


async def _decompressed(body: bytearray, share: Share) -> bytearray | None:
    """Return what a compressed body holds, None if that is not one or too large."""
    await share.grow_to(2 * len(body) + MAX_ANSWER_BYTES)
    # With or without a header of gzip's or zlib's.
    decoder = zlib.decompressobj(47)
    try:
        found = decoder.decompress(body, MAX_ANSWER_BYTES + 1)
    except zlib.error:
        return None
    await asyncio.sleep(0)
    is_whole = decoder.eof and len(found) <= MAX_ANSWER_BYTES
    return bytearray(found) if is_whole else None
