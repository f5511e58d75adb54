"""Frames of HTTP/2 (RFC 9113 section 4), as far as who carries them must understand them.

The front of gRPC's socket reads the nine bytes before each frame and hands the frames on as they
are. So it knows which calls are under way, how much of their requests has come, and since when; and
it can refuse what would cost gRPC memory or time without end. Everything else is gRPC's concern.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends first (RFC 9113 3.4)."""

NO_ERROR: Final = 0x0
PROTOCOL_ERROR: Final = 0x1
ENHANCE_YOUR_CALM: Final = 0xB

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _GOAWAY, _CONTINUATION = 0x0, 0x1, 0x3, 0x4, 0x7, 0x9
_END_STREAM: Final = 0x1
_END_HEADERS: Final = 0x4
_PADDED: Final = 0x8
_CODE_BYTES: Final = 4
_HEADER_BYTES: Final = 9
LAST_POSSIBLE_STREAM: Final = 0x7FFFFFFF


class FrameError(Exception):
    """What the other side sent is refused: why, and the error code to tell it."""

    def __init__(self, reason: str, code: int = ENHANCE_YOUR_CALM) -> None:
        super().__init__(reason)
        self.code = code


def goaway(last_stream: int, code: int) -> bytes:
    """Return a GOAWAY frame (RFC 9113 6.8): calls after `last_stream` were not looked at."""
    return struct.pack(">IBIII", (8 << 8) | _GOAWAY, 0, 0, last_stream, code)


class _Frames:
    """Where one frame ends and the next begins, however the bytes arrive."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._left = 0

    @property
    def is_between_frames(self) -> bool:
        """Whether all that came so far are whole frames."""
        return not self._header and not self._left

    def _next_header(self, data: memoryview, at: int) -> int:
        """Collect the bytes of a frame's header from `at` on; return where they end."""
        taken = min(_HEADER_BYTES - len(self._header), len(data) - at)
        self._header += data[at : at + taken]
        return at + taken

    def _header_fields(self) -> tuple[int, int, int, int] | None:
        """Return length, type, flags and stream of a frame once its header is there."""
        if len(self._header) < _HEADER_BYTES:
            return None
        length_and_type, flags, stream = struct.unpack(">IBI", self._header)
        return length_and_type >> 8, length_and_type & 0xFF, flags, stream & LAST_POSSIBLE_STREAM


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameLimits:
    """What a client may have under way on one connection.

    `streams` calls at a time, `header_bytes` of compressed headers a call.
    """

    streams: int = 200
    header_bytes: int = 64 * 1024


@dataclass(slots=True)
class _Call:
    since: float
    request_bytes: int = 0
    is_complete: bool = False


class ClientFrames(_Frames):
    """What a client sends.

    `last_stream` is the latest call that was handed on, `calls` how many these were, `count` the
    number of frames so far, `request_bytes` how much came of the requests of calls under way.
    """

    def __init__(
        self, limits: FrameLimits | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._limits = limits or FrameLimits()
        self._clock = clock
        self._preface = PREFACE
        self._calls: dict[int, _Call] = {}
        self._block: int | None = None
        self._block_bytes = 0
        self._hands_on = True
        self._began: float | None = None
        self._resetting: int | None = None
        self._reset_code = bytearray()
        self._resets: list[int] = []
        self.is_greeted = False
        self.is_draining = False
        self.last_stream = 0
        self.calls = 0
        self.count = 0
        self.request_bytes = 0

    @property
    def is_idle(self) -> bool:
        """Whether no call is under way."""
        return not self._calls

    def incomplete_since(self) -> float | None:
        """Return since when the client owes the rest of a frame or request; None if it does not."""
        times = [call.since for call in self._calls.values() if not call.is_complete]
        if self._began is not None:
            times.append(self._began)
        return min(times, default=None)

    def end_call(self, stream: int) -> None:
        """Forget a call that was answered."""
        call = self._calls.pop(stream, None)
        if call is not None:
            self.request_bytes -= call.request_bytes

    def take_resets(self) -> list[int]:
        """Return the calls that the client has given up since this was asked last.

        A reset with NO_ERROR (RFC 9113 8.1) is none: its sender has the whole answer.
        """
        resets, self._resets = self._resets, []
        return resets

    def feed(self, data: memoryview) -> bytes:
        """Return what of the data is to be handed on now.

        Once `is_draining` is set, calls that were not begun before are left out.

        Raises:
            FrameError: nothing more is to be taken from this client.
        """
        parts: list[memoryview | bytes] = []
        at = self._take_preface(data, parts) if self._preface else 0
        while at < len(data):
            if self._left:
                taken = min(self._left, len(data) - at)
                if self._hands_on:
                    parts.append(data[at : at + taken])
                if self._resetting is not None:
                    self._reset_code += data[at : at + taken]
                self._left -= taken
                at += taken
            else:
                if not self._header:
                    self._began = self._clock()
                at = self._next_header(data, at)
                fields = self._header_fields()
                if fields is None:
                    break
                self._hands_on = self._begin(*fields)
                if self._hands_on:
                    parts.append(bytes(self._header))
                self._header.clear()
                self._left = fields[0]
            if self.is_between_frames:
                self._began = None
                self._note_reset()
        return b"".join(parts)

    def _note_reset(self) -> None:
        if self._resetting is not None and any(self._reset_code):
            self._resets.append(self._resetting)
        self._resetting = None
        self._reset_code.clear()

    def _take_preface(self, data: memoryview, parts: list[memoryview | bytes]) -> int:
        taken = bytes(data[: len(self._preface)])
        if not self._preface.startswith(taken):
            raise FrameError("not HTTP/2", PROTOCOL_ERROR)
        self._preface = self._preface[len(taken) :]
        parts.append(taken)
        return len(taken)

    def _begin(self, length: int, kind: int, flags: int, stream: int) -> bool:
        """Note a frame; return whether it is to be handed on."""
        self.count += 1
        if self._block is not None and (kind != _CONTINUATION or stream != self._block):
            raise FrameError("another frame within headers", PROTOCOL_ERROR)
        if kind == _SETTINGS:
            self.is_greeted = True
        elif not self.is_greeted:
            raise FrameError("no settings first", PROTOCOL_ERROR)
        elif kind in {_HEADERS, _CONTINUATION}:
            self._begin_headers(length, kind, flags, stream)
        if kind == _RST_STREAM and length == _CODE_BYTES:
            self._resetting = stream
        call = self._calls.get(stream)
        if call is not None:
            if kind == _DATA:
                call.request_bytes += length
                self.request_bytes += length
            if kind in {_DATA, _HEADERS} and flags & _END_STREAM:
                call.is_complete = True
            if kind == _RST_STREAM:
                self.end_call(stream)
        return stream <= self.last_stream

    def _begin_headers(self, length: int, kind: int, flags: int, stream: int) -> None:
        if kind == _HEADERS:
            self._block_bytes = 0
            if stream > self.last_stream and not self.is_draining:
                if len(self._calls) >= self._limits.streams:
                    raise FrameError(f"more than {self._limits.streams} calls at a time")
                self.last_stream = stream
                self.calls += 1
                self._calls[stream] = _Call(self._clock())
        self._block_bytes += length
        if self._block_bytes > self._limits.header_bytes:
            raise FrameError(f"more than {self._limits.header_bytes} bytes of headers")
        self._block = None if flags & _END_HEADERS else stream


class ServerFrames(_Frames):
    """What the server answers; of each answer the first `kept` bytes are remembered to its end."""

    def __init__(self, kept: int = 0) -> None:
        super().__init__()
        self._kept = kept
        self._answers: dict[int, bytes] = {}
        self._answering: int | None = None

    def take_answer(self, stream: int) -> bytes:
        """Return the beginning of an answer that has ended, and forget it."""
        return self._answers.pop(stream, b"")

    def feed(self, data: memoryview) -> list[int]:
        """Look at data that is handed on; return the calls that end in it."""
        ended = []
        at = 0
        while at < len(data):
            if self._left:
                taken = min(self._left, len(data) - at)
                if self._answering is not None:
                    known = self._answers.get(self._answering, b"")
                    more = data[at : at + min(taken, self._kept - len(known))]
                    self._answers[self._answering] = known + bytes(more)
                self._left -= taken
                at += taken
                continue
            at = self._next_header(data, at)
            fields = self._header_fields()
            if fields is None:
                break
            self._header.clear()
            self._left, kind, flags, stream = fields
            self._answering = stream if kind == _DATA and not flags & _PADDED else None
            if kind == _RST_STREAM or (kind in {_DATA, _HEADERS} and flags & _END_STREAM):
                ended.append(stream)
        return ended
