"""Bytes both ways between two connections, as if they were one."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

CHUNK: Final = 256 * 1024
# After the daemon's last byte a client has this long to close its side.
_LAST_WORDS_SECONDS: Final = 10.0


async def tunnel(
    client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    daemon: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    """Copy until both sides have ended; the end of one side alone is passed on as such.

    Attached containers need that: the end of their input is not the end of their output.
    """
    upwards = asyncio.create_task(_copy(client[0], daemon[1]))
    downwards = asyncio.create_task(_copy(daemon[0], client[1]))
    try:
        await asyncio.wait({upwards, downwards}, return_when=asyncio.FIRST_COMPLETED)
        if downwards.done() or not upwards.result():
            await asyncio.wait({upwards, downwards}, timeout=_LAST_WORDS_SECONDS)
        else:
            await downwards
    finally:
        for task in (upwards, downwards):
            task.cancel()
        await asyncio.gather(upwards, downwards, return_exceptions=True)


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> bool:
    """Copy to the end and pass the end on; return whether both sides were sound until then."""
    try:
        while chunk := await source.read(CHUNK):
            target.write(chunk)
            await target.drain()
        if target.can_write_eof():
            target.write_eof()
    except OSError:
        with contextlib.suppress(OSError):
            target.close()
        return False
    return True
