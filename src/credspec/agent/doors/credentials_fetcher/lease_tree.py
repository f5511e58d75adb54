"""The directories that credentials-fetcher promises: ``krbdir/<lease>/<account>``.

They must be on a tmpfs, since tickets never reach a disk. Nothing in the tree is followed, and
every step is opened from the one before.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

from credspec.agent.leases.mounts import is_tmpfs
from credspec.errors import CredspecError, NotPermittedError, UsageError
from credspec.fetcher_lease_files import (
    LEASE_ID,
    MOST_METADATA_BYTES,
    TICKETS_DIRECTORY,
    metadata_name,
)
from credspec.file_replacement import replace_file
from credspec.path_walk import DIRECTORY_FLAGS, opened_directory, read_file

_OTHERS_WRITE: Final = 0o022


class LeaseTree:
    """The tree below `root`, which root made and nobody else may write to."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def check(self) -> None:
        """Refuse a tree that is no place for tickets.

        Raises:
            UsageError: `lease-tree-missing`, `lease-tree-not-tmpfs`.
            NotPermittedError: `lease-tree-not-trusted`.
        """
        try:
            fd = os.open(self.root, DIRECTORY_FLAGS)
        except OSError as error:
            raise UsageError.of(
                "lease-tree-missing",
                error.strerror or str(error),
                where=str(self.root),
                remedy=self._how_to_make_it(),
            ) from None
        try:
            status = os.fstat(fd)
            if status.st_uid not in {0, os.geteuid()} or status.st_mode & _OTHERS_WRITE:
                raise NotPermittedError.of(
                    "lease-tree-not-trusted",
                    "others than root can write there",
                    where=str(self.root),
                    remedy=f"chown root {self.root} && chmod 0755 {self.root}",
                )
            if not is_tmpfs(fd):
                raise UsageError.of(
                    "lease-tree-not-tmpfs",
                    "tickets would reach a disk",
                    where=str(self.root),
                    expected="a tmpfs",
                    remedy=self._how_to_make_it(),
                )
        finally:
            os.close(fd)

    def _how_to_make_it(self) -> str:
        return (
            "install its mount with `credspec setup agent --grpc-compat`, or mount it: mkdir -p "
            f"{self.root} && mount -t tmpfs -o mode=0755,size=64m,nosuid,nodev,noexec tmpfs "
            f"{self.root}"
        )

    def path(self, lease: str, name: str) -> Path:
        """Return where the tickets of an account of a lease are."""
        return self.root / _valid(LEASE_ID, lease) / _valid(TICKETS_DIRECTORY, name)

    def make(self, lease: str, name: str) -> Path:
        """Make the directory of an account of a lease, if it is not there; return it.

        Raises:
            CredspecError: `lease-tree-unwritable`.
        """
        path = self.path(lease, name)
        try:
            with opened_directory(self.root) as root:
                _make_directory(lease, root)
                with opened_directory(root, [lease]) as parent:
                    _make_directory(name, parent)
        except OSError as error:
            raise _unwritable(path, error) from None
        return path

    def write_metadata(self, lease: str, data: bytes) -> None:
        """Replace the metadata of a lease, atomically; everybody may read it.

        Raises:
            CredspecError: `lease-tree-unwritable`.
        """
        name = metadata_name(_valid(LEASE_ID, lease))
        try:
            with opened_directory(self.root, [lease]) as parent:
                replace_file(name, data, mode=0o644, dir_fd=parent)
        except OSError as error:
            raise _unwritable(self.root / lease / name, error) from None

    def read_metadata(self, lease: str) -> bytes | None:
        """Return the metadata of a lease, None if it has none that can be read."""
        name = metadata_name(_valid(LEASE_ID, lease))
        with suppress(OSError), opened_directory(self.root, [lease]) as parent:
            return read_file(name, parent, MOST_METADATA_BYTES)
        return None

    def leases(self) -> list[str]:
        """Return the names in the tree that may be leases, in order."""
        with suppress(OSError), opened_directory(self.root) as root:
            names = os.listdir(root)  # noqa: PTH208 - pathlib has no descriptors
            return sorted(name for name in names if LEASE_ID.fullmatch(name))
        return []

    def remove(self, lease: str, keep: frozenset[str] = frozenset()) -> None:
        """Remove a lease with all that is in it but the directories to `keep`; gone is fine."""
        _valid(LEASE_ID, lease)
        with suppress(OSError), opened_directory(self.root) as root:
            with opened_directory(root, [lease]) as parent:
                for name in os.listdir(parent):  # noqa: PTH208 - pathlib has no descriptors
                    if name not in keep and not (keep and name == metadata_name(lease)):
                        # What cannot be removed now keeps nothing else.
                        with suppress(OSError):
                            _remove(name, parent)
            if not keep:
                os.rmdir(lease, dir_fd=root)


def _valid(form: re.Pattern[str], name: str) -> str:
    if not form.fullmatch(name):
        raise ValueError("not a name in the lease tree")
    return name


def _make_directory(name: str, parent: int) -> None:
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent)
    with opened_directory(parent, [name]) as fd:
        # Every user passes through, whatever the umask.
        os.fchmod(fd, 0o755)


def _remove(name: str, parent: int) -> None:
    """Remove a file, or a directory of files; deeper there is nothing of credspec's."""
    try:
        os.unlink(name, dir_fd=parent)
    except IsADirectoryError:
        with opened_directory(parent, [name]) as fd:
            for inner in os.listdir(fd):  # noqa: PTH208 - pathlib has no descriptors
                # The lease that ends meanwhile removes its files, too.
                with suppress(FileNotFoundError):
                    os.unlink(inner, dir_fd=fd)
        os.rmdir(name, dir_fd=parent)


def _unwritable(path: Path, error: OSError) -> CredspecError:
    return CredspecError.of(
        "lease-tree-unwritable",
        error.strerror or str(error),
        where=str(path),
        remedy="free space there, or make it writable (df, mount)",
    )
