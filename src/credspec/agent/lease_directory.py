"""The directory that a container sees as ``/run/credspec``: a small tmpfs, made by the shim.

The container's user may change anything in it, so nothing is followed and nothing in it is
trusted: files are made under fresh names and renamed into place.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from credspec.errors import CredspecError

_UNFINISHED: Final = re.compile(r"\.krb5[^/]*\.[0-9a-f]{16}")


def write_files(directory: Path, files: dict[str, bytes], *, uid: int, gid: int) -> None:
    """Put files into a lease's directory, each replaced atomically, readable by the owner only.

    `files` maps plain names to contents; `uid` and `gid` are the host's numbers of the container's
    user.

    Raises:
        CredspecError: `lease-directory-missing` if no tmpfs is mounted there,
            `lease-directory-full`, `lease-directory-unwritable`.
    """
    with _opened(directory) as directory_fd:
        for name, content in files.items():
            try:
                _replace(directory_fd, name, content, (uid, gid))
            except OSError as error:
                raise _not_written(directory / name, error) from None


def wipe(directory: Path) -> None:
    """Remove every file of a lease's directory; a directory that is gone is fine.

    Directories are the container's own and go with the mount.
    """
    try:
        with _opened(directory) as directory_fd:
            for name in os.listdir(directory_fd):  # noqa: PTH208 - pathlib has no descriptors
                with suppress(OSError):
                    os.unlink(name, dir_fd=directory_fd)
    except CredspecError:
        return


def remove_leftovers(directory: Path) -> None:
    """Remove the files that a run that was killed had not renamed into place yet."""
    try:
        with _opened(directory) as directory_fd:
            _remove_unfinished(directory_fd)
    except CredspecError:
        return


def names_in(directory: Path) -> set[str]:
    """Return the names of the regular files in a lease's directory; empty if it is gone."""
    try:
        with os.scandir(directory) as entries:
            return {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}
    except OSError:
        return set()


def is_mounted(directory: Path) -> bool:
    """Return whether a file system of its own is mounted at `directory`."""
    try:
        return os.lstat(directory).st_dev != os.lstat(directory.parent).st_dev
    except OSError:
        return False


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _missing(directory, error.strerror or str(error)) from None
    try:
        # Without the mount, a ticket would land on the host's /run, outside any limit.
        if os.fstat(fd).st_dev == os.lstat(directory.parent).st_dev:
            raise _missing(directory, "nothing is mounted there")
        yield fd
    finally:
        os.close(fd)


def _replace(directory_fd: int, name: str, content: bytes, owner: tuple[int, int]) -> None:
    temporary = f".{name}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600, dir_fd=directory_fd)
    try:
        os.fchown(fd, *owner)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
        os.rename(temporary, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=directory_fd)
        raise


def _remove_unfinished(directory_fd: int) -> None:
    for name in os.listdir(directory_fd):
        if _UNFINISHED.fullmatch(name):
            with suppress(OSError):
                os.unlink(name, dir_fd=directory_fd)


def _not_written(path: Path, error: OSError) -> CredspecError:
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    return CredspecError.of(
        "lease-directory-full" if full else "lease-directory-unwritable",
        error.strerror or str(error),
        where=str(path),
        remedy="the container filled its /run/credspec" if full else "",
    )


def _missing(directory: Path, found: str) -> CredspecError:
    return CredspecError.of(
        "lease-directory-missing",
        found,
        where=str(directory),
        expected="the tmpfs that credspec-runtime mounts",
        remedy="if the agent has a mount namespace of its own, mounts of the host must reach it",
    )
