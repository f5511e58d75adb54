"""What can be wrong with a lease's directory."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Final

from credspec.agent.leases.free_space import FULL
from credspec.errors import CredspecError

_GONE: Final = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL}
)


def means_gone(error: OSError) -> bool:
    """Return whether an error says that a path names nothing, not that it cannot be looked at.

    A network or user's file system that does not answer, or a lack of descriptors or memory, says
    nothing of what is there.
    """
    return error.errno in _GONE


def not_written(
    path: Path, error: OSError, taken_by_others: int = 0, make_room: str = ""
) -> CredspecError:
    """Return why a file was not written.

    `taken_by_others` is how many bytes of the file system other files take, `make_room` what to do
    if it is full.
    """
    full = error.errno in FULL
    found = error.strerror or str(error)
    if taken_by_others:
        found += f"; other files take {taken_by_others // 1024} KiB of that file system"
    return CredspecError.of(
        "lease-directory-full" if full else "lease-directory-unwritable",
        found,
        where=str(path),
        remedy=make_room if full else "",
    )


def missing(directory: Path, found: str) -> CredspecError:
    """Return why a directory cannot have tickets."""
    return CredspecError.of(
        "lease-directory-missing",
        found,
        where=str(directory),
        expected="the tmpfs that credspec-runtime mounts, or a directory in the user's own",
        remedy="if the agent has a mount namespace of its own, mounts of the host must reach it",
    )
