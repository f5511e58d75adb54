"""Bytes in both directions between two sockets, as if they were one."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import socket
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum, auto
from typing import Final

CHUNK: Final = 64 * 1024
# The most that a pipe may have unless the system's settings say otherwise (pipe(7)).
_PIPE_BYTES: Final = 1024 * 1024
# Those on top have what pipes have anyway, 64 KiB.
_MOST_LARGE_PIPES: Final = 64
_SPLICE_FLAGS: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
# After the last byte for it a client has this long to stop sending.
_LAST_WORDS_SECONDS: Final = 1.0
HANG_UP_SECONDS: Final = 5.0
"""How often it is looked whether a side has gone, of which nothing else would tell."""


class _End(Enum):
    """Why one direction ended."""

    SOURCE_ENDED = auto()
    SOURCE_LOST = auto()
    TARGET_LOST = auto()


async def tunnel(
    client: socket.socket,
    daemon: socket.socket,
    first: list[bytearray] | None = None,
    *,
    sent: Callable[[], None] = lambda: None,
) -> None:
    """Send what is `first` to the daemon, then copy until both sides have ended or one is gone.

    It is overwritten then, since it may be secret, and `sent` is called.

    The end of only one side is passed on as such, however long the other goes on: attached
    containers need that. Both sockets are non-blocking Unix sockets; they stay open.
    """
    # Not asyncio's streams: after a failed write they drop what the daemon has answered.
    upwards = asyncio.create_task(_copy(client, daemon, first or [], sent))
    downwards = asyncio.create_task(_copy(daemon, client))
    running = {upwards, downwards}
    try:
        while running and not _is_over(upwards, client, downwards, daemon):
            # With one direction at its end nothing tells of a side that goes away: look.
            _, running = await asyncio.wait(
                running,
                timeout=HANG_UP_SECONDS if len(running) == 1 else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
    finally:
        for task in (upwards, downwards):
            task.cancel()
        await asyncio.gather(upwards, downwards, return_exceptions=True)
    await end_politely(client)


async def end_politely(
    client: socket.socket, look: Callable[[bytes], None] = lambda _: None
) -> None:
    """End the answer, and take in for a moment what the client still sends; `look` sees it.

    Closed with unread bytes, the socket would break the client's sending before it reads why.
    """
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError, TimeoutError):
        client.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(_LAST_WORDS_SECONDS):
            rest = b"?"
            while rest:
                await asyncio.sleep(0)
                rest = await loop.sock_recv(client, CHUNK)
                look(rest)


async def _copy(
    source: socket.socket,
    target: socket.socket,
    first: Sequence[bytearray] = (),
    sent: Callable[[], None] = lambda: None,
) -> _End:
    loop = asyncio.get_running_loop()
    parts = list(first)
    try:
        for part in parts:
            await loop.sock_sendall(target, part)
    except OSError:
        return _End.TARGET_LOST
    finally:
        for part in parts:
            wipe(part)
        sent()
    while True:
        # Neither call waits while both sides are quick, and others want their turn.
        await asyncio.sleep(0)
        try:
            chunk = await loop.sock_recv(source, CHUNK)
        except OSError:
            return _End.SOURCE_LOST
        if not chunk:
            return _ended(target)
        try:
            await loop.sock_sendall(target, chunk)
        except OSError:
            return _End.TARGET_LOST
        is_much = len(chunk) == CHUNK
        # It may be secret, and the next may come tomorrow.
        del chunk
        if is_much and (pipe := _pipe()) is not None:
            # The idle have no pipe.
            return await _move(source, target, pipe)


def wipe(data: bytearray) -> None:
    """Overwrite what may be secret, and give its memory back."""
    with memoryview(data) as view:
        for start in range(0, len(data), CHUNK):
            part = view[start : start + CHUNK]
            part[:] = bytes(len(part))
            part.release()
    with contextlib.suppress(BufferError):  # a sending that was cancelled still refers to it
        data.clear()


def _ended(target: socket.socket) -> _End:
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
    return _End.SOURCE_ENDED


def _pipe() -> tuple[int, int] | None:
    """Return a pipe's ends, None while there are too many open files."""
    try:
        ends = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    if _large_pipes.has_room():
        with contextlib.suppress(OSError):  # a user's pipes may have less; each round moves less
            fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return ends


class _LargePipes:
    """Counts pipes: what is in those of clients that do not read is memory of this process's."""

    def __init__(self) -> None:
        self.count = 0

    def has_room(self) -> bool:
        return self.count < _MOST_LARGE_PIPES


_large_pipes: Final = _LargePipes()


async def _move(source: socket.socket, target: socket.socket, pipe: tuple[int, int]) -> _End:
    """Copy as `_copy` does, by splice(2) through a pipe: the kernel hands memory on as it is."""
    outlet, inlet = pipe
    _large_pipes.count += 1
    try:
        while True:
            try:
                left = await _splice(source.fileno(), inlet, _PIPE_BYTES, lambda: _readable(source))
            except OSError:
                return _End.SOURCE_LOST
            if left == 0:
                return _ended(target)
            while left:
                try:
                    left -= await _splice(outlet, target.fileno(), left, lambda: _writable(target))
                except OSError:
                    return _End.TARGET_LOST
            # Neither waits while both sides are quick, and others want their turn.
            await asyncio.sleep(0)
    finally:
        _large_pipes.count -= 1
        os.close(outlet)
        os.close(inlet)


async def _splice(
    source: int, target: int, count: int, until_ready: Callable[[], Awaitable[None]]
) -> int:
    while True:
        try:
            return os.splice(source, target, count, flags=_SPLICE_FLAGS)
        except BlockingIOError:
            await until_ready()


async def _readable(side: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(side, _tell, ready)
    try:
        await ready
    finally:
        loop.remove_reader(side)


async def _writable(side: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_writer(side, _tell, ready)
    try:
        await ready
    finally:
        loop.remove_writer(side)


def _tell(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _is_over(
    upwards: asyncio.Task[_End],
    client: socket.socket,
    downwards: asyncio.Task[_End],
    daemon: socket.socket,
) -> bool:
    """Return whether nothing can flow any more, although a direction may still wait."""
    if upwards.done():
        end = upwards.result()
        # A daemon that takes no more of the request may still be answering.
        if end is _End.SOURCE_LOST or (end is _End.SOURCE_ENDED and hung_up(client)):
            return True
    if downwards.done():
        return downwards.result() is not _End.SOURCE_ENDED or hung_up(daemon)
    return False


def hung_up(side: socket.socket) -> bool:
    """Return whether the other end of a Unix socket is closed, not only ended for writing."""
    poll = select.poll()
    poll.register(side, 0)
    return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))
