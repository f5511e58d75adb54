"""Files of container engines, as set-up commands read, replace and remove them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Self

from credspec.errors import CredspecError, NotPermittedError
from credspec.file_replacement import replace_file


class FileChange(str):
    """A line that says how a file was changed, and which: `path`."""

    __slots__ = ("path",)
    path: Path

    @classmethod
    def of(cls, text: str, path: Path) -> Self:
        """Return the line for a change of a file."""
        change = cls(text)
        change.path = path
        return change


def read_file(path: Path) -> bytes | None:
    """Return a file's content, None if there is none.

    Raises:
        CredspecError: `setup-read`.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _failed("setup-read", path, error) from None


def remove_file(path: Path) -> None:
    """Remove a file; one that is not there is fine.

    Raises:
        CredspecError: `setup-write`.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _failed("setup-write", path, error) from None


def write_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace a file atomically; one that exists keeps its mode and owner.

    Raises:
        CredspecError: `setup-write`.
    """
    path = Path(os.path.realpath(path))  # a link stays a link
    owner = None
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            present = path.stat()
            owner, mode = (present.st_uid, present.st_gid), present.st_mode & 0o7777
        replace_file(path, data, mode=mode, owner=owner)
    except OSError as error:
        raise _failed("setup-write", path, error) from None


def _failed(code: str, path: Path, error: OSError) -> CredspecError:
    refused = isinstance(error, PermissionError)
    kind = NotPermittedError if refused else CredspecError
    return kind.of(
        code,
        error.strerror or str(error),
        where=str(path),
        remedy="run it as root" if refused else "",
    )
