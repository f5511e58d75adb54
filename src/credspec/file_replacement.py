"""Files that are replaced: readers see the old content or all of the new, at any moment."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

TEMPORARY: Final = ".credspec-"
"""How the names of files start that are not whole yet; a crash may leave one."""

LEFTOVER: Final = re.compile(rf"{re.escape(TEMPORARY)}[0-9a-f]{{16}}")
"""What such a file is called."""

_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_TAKEN_BY_CHOWN: Final = stat.S_ISUID | stat.S_ISGID


def remove_unfinished(directory: Path) -> None:
    """Remove what a process that was killed had begun to write; none may be writing there now."""
    remove_files(directory, lambda name: name.startswith(TEMPORARY))


def remove_files(directory: Path, is_wanted: Callable[[str], bool]) -> None:
    """Remove the files of a directory whose names are wanted, as far as that can be done."""
    names: list[str] = []
    with suppress(OSError):
        # Plain names: there may be thousands, and paths take longer to make.
        names = os.listdir(directory)  # noqa: PTH208 - as above
    for name in filter(is_wanted, names):
        with suppress(OSError):
            (directory / name).unlink()


def replace_file(
    path: str | os.PathLike[str],
    data: bytes,
    *,
    mode: int,
    owner: tuple[int, int] | None = None,
    dir_fd: int | None = None,
    no_clobber: bool = False,
    durable: bool = False,
) -> None:
    """Make or replace a file with `mode`, whatever the umask; on failure all is as it was.

    `owner` is a user and a group id, `dir_fd` an open directory that `path` is relative to. With
    `no_clobber` a file that is there stays. With `durable` the content, and with `dir_fd` the name,
    are on the disk before this returns. A link is replaced, not followed.

    Raises:
        FileExistsError: a file is there, with `no_clobber`.
        OSError: whatever else the file system says.
    """
    whole = os.fspath(path)
    temporary = os.path.join(os.path.dirname(whole), f"{TEMPORARY}{os.urandom(8).hex()}")  # noqa: PTH118, PTH120
    descriptor = os.open(temporary, _NEW_FILE, 0o600, dir_fd=dir_fd)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            # In this order: the agent may give files away, but not change those of others.
            os.fchmod(descriptor, mode)
            if owner is not None:
                os.fchown(descriptor, *owner)
                if mode & _TAKEN_BY_CHOWN:
                    os.fchmod(descriptor, mode)
            if durable:
                os.fsync(descriptor)
        if no_clobber:
            # A link, unlike a rename, never takes the place of another file.
            os.link(temporary, whole, src_dir_fd=dir_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
        else:
            os.rename(temporary, whole, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    finally:
        with suppress(OSError):  # it is gone if it was renamed
            os.unlink(temporary, dir_fd=dir_fd)
    if durable and dir_fd is not None:
        os.fsync(dir_fd)
