"""Directories that are opened step by step, so that no component of a path can be a link."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""How a directory is opened that is read or written below."""

_FILE_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class LinkError(OSError):
    """A component of the path is a symbolic link, which is not followed; `filename` is its name."""


def open_component(name: str, flags: int, dir_fd: int) -> int:
    """Open one component below an open directory; `flags` hold O_NOFOLLOW.

    Raises:
        LinkError: it is a link.
        OSError: whatever else the file system says.
    """
    try:
        return os.open(name, flags, dir_fd=dir_fd)
    except OSError as error:
        # Linux reports a refused link as ELOOP, or as ENOTDIR where a directory was asked for.
        if error.errno in {errno.ELOOP, errno.ENOTDIR} and _is_link(name, dir_fd):
            raise LinkError(error.errno, error.strerror, name) from None
        raise


@contextmanager
def opened_directory(
    top: str | os.PathLike[str] | int,
    below: Iterable[str] = (),
    *,
    flags: int = DIRECTORY_FLAGS,
    check: Callable[[int, str], object] | None = None,
) -> Iterator[int]:
    """Open `top`, a path or a descriptor that stays open, then one after the other what is `below`.

    `check` gets descriptor and name of each directory below `top` before the next is opened,
    and refuses it by raising.

    Raises:
        LinkError: a component below is a link.
        OSError: whatever else the file system says, also of a link as `top`.
    """
    descriptor = os.dup(top) if isinstance(top, int) else os.open(top, flags)
    try:
        for name in below:
            inner = open_component(name, flags, descriptor)
            os.close(descriptor)
            descriptor = inner
            if check is not None:
                check(descriptor, name)
        yield descriptor
    finally:
        os.close(descriptor)


def read_file(name: str, dir_fd: int, most: int) -> bytes:
    """Read a regular file of an open directory, never through a link.

    Raises:
        OSError: it cannot be opened, is something else, or is longer than `most` bytes.
    """
    fd = os.open(name, _FILE_FLAGS, dir_fd=dir_fd)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError("no regular file")
        with os.fdopen(fd, "rb", closefd=False) as file:
            data = file.read(most + 1)
    finally:
        os.close(fd)
    if len(data) > most:
        raise OSError(f"more than {most} bytes")
    return data


def _is_link(name: str, dir_fd: int) -> bool:
    try:
        status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISLNK(status.st_mode)
