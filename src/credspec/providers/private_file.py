"""Files with secrets: opened without following links, and only if private to root."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Final

from credspec.errors import NotPermittedError
from credspec.path_walk import LinkError, open_component, opened_directory
from credspec.providers.answers import MAX_ANSWER_BYTES

FILE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,127}")
"""Names of files in a directory of secrets."""

_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_OF_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_WRITTEN_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


def read_private_file(path: Path, where: str, *, secret: bool = True) -> bytes:
    """Return a file's content, at most 64 KiB and a byte.

    Neither the file nor a directory above it may be a link, or written by others than root; a
    `secret` one may not be read by others.

    Raises:
        NotPermittedError: `host-account-file`.
    """
    descriptor = _opened(path, where, _OF_OTHERS if secret else _WRITTEN_BY_OTHERS)
    try:
        data = b""
        while chunk := os.read(descriptor, MAX_ANSWER_BYTES + 1 - len(data)):
            data += chunk
        return data
    finally:
        os.close(descriptor)


def check_program_file(path: Path, where: str) -> None:
    """Refuse a program that others than root may write or replace, or that is a link.

    Raises:
        NotPermittedError: `host-account-file`.
    """
    os.close(_opened(path, where, _WRITTEN_BY_OTHERS))


def _opened(path: Path, where: str, forbidden: int) -> int:
    """Return a descriptor of a regular file without any of the `forbidden` bits of its mode."""
    try:
        descriptor = _open(path, where)
    except OSError as error:
        raise _refused(path, where, error.strerror or "cannot be opened") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _refused(path, where, "not a regular file")
        _check(path, where, status, forbidden)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _open(path: Path, where: str) -> int:
    def check(descriptor: int, _: str) -> None:
        status = os.fstat(descriptor)
        # In a directory like /tmp no user can replace another user's files.
        sticky = bool(status.st_mode & stat.S_ISVTX)
        _check(path, where, status, 0 if sticky else _WRITTEN_BY_OTHERS)

    try:
        with opened_directory("/", path.parts[1:-1], check=check) as parent:
            return open_component(path.name, _FILE, parent)
    except LinkError as error:
        raise _refused(path, where, f"{error.filename} is a link") from None


def _check(path: Path, where: str, status: os.stat_result, forbidden: int) -> None:
    if status.st_uid not in {0, os.geteuid()}:
        raise _refused(path, where, f"it, or what it is in, belongs to user {status.st_uid}")
    if status.st_mode & forbidden:
        raise _refused(path, where, f"its mode, or that of what it is in, is {status.st_mode:o}")


def _refused(path: Path, where: str, found: str) -> NotPermittedError:
    return NotPermittedError.of(
        "host-account-file",
        f"{path}: {found}",
        where=where,
        expected="a file owned by root that no other user may read or replace, without links",
        remedy="chown root, chmod 600, and name it by its real path",
    )
