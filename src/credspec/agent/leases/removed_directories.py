"""Which directories of leases were removed, as the kernel tells it (inotify(7)).

The shim's launcher, a shell's script, cannot speak to the agent: when a container has ended, it
removes what the agent wrote, unmounts, and removes the directory.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

_IN_DELETE: Final = 0x00000200
_IN_IGNORED: Final = 0x00008000
_IN_ONLYDIR: Final = 0x01000000
_HEAD: Final = struct.Struct("iIII")  # inotify_event: watch, mask, cookie, length of the name
_BUFFER_BYTES: Final = 64 * 1024


async def follow_removals(directory: Path, removed: Callable[[str], object]) -> None:
    """Call `removed` with the name of everything that is removed from a directory, in order.

    Goes on until it is cancelled, or until the directory itself is gone. Names that the kernel had
    no room for are left out.

    Raises:
        OSError: the kernel has no watch to give.
    """
    loop = asyncio.get_running_loop()
    is_gone = asyncio.Event()
    fd = _watch(directory)

    def look() -> None:
        for mask, name in _events(fd):
            if mask & _IN_IGNORED:
                is_gone.set()
            if mask & _IN_DELETE:
                removed(name)

    try:
        loop.add_reader(fd, look)
        try:
            await is_gone.wait()
        finally:
            loop.remove_reader(fd)
    finally:
        os.close(fd)


def _watch(directory: Path) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    fd: int = library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        raise _error(directory)
    if library.inotify_add_watch(fd, bytes(directory), _IN_DELETE | _IN_ONLYDIR) < 0:
        error = _error(directory)
        os.close(fd)
        raise error
    return fd


def _error(directory: Path) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), str(directory))


def _events(fd: int) -> list[tuple[int, str]]:
    """Return what has happened since the last look: masks and names."""
    try:
        data = os.read(fd, _BUFFER_BYTES)
    except BlockingIOError:
        return []
    found = []
    position = 0
    while position < len(data):
        _, mask, _, length = _HEAD.unpack_from(data, position)
        position += _HEAD.size
        name = data[position : position + length].rstrip(b"\0")
        position += length
        found.append((mask, os.fsdecode(name)))
    return found
