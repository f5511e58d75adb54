"""The directory that a container sees as ``/run/credspec``, made by the shim, filled by the agent.

The container's user, and the user who started the container, may change anything in it: so nothing
is followed, nothing in it is trusted, and files are made under fresh names and renamed into place.
Which directory a lease has is in `credspec.agent.leases.homes`.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from credspec.agent.leases.directory_errors import means_gone, missing, not_written
from credspec.agent.leases.free_space import FULL, FreeSpace
from credspec.agent.leases.mounts import is_tmpfs
from credspec.errors import CredspecError
from credspec.file_replacement import LEFTOVER, replace_file
from credspec.path_walk import DIRECTORY_FLAGS, opened_directory

# Of runs of an agent before `replace_file` had a name of its own for what is unfinished.
_OLD_LEFTOVER: Final = re.compile(r"\.krb5[^/]*\.[0-9a-f]{16}")
_MOST_FILE_BYTES: Final = 16 << 20
_OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class LeaseDirectory:
    """A directory on which a small tmpfs of its own is mounted."""

    path: Path

    def write(self, files: dict[str, bytes], *, uid: int, gid: int, mode: int = 0o600) -> None:
        """Put files into it, each replaced atomically.

        Where there is no space in addition to what they replace, that is removed first.

        `files` maps plain names to contents; `uid` and `gid` are the host's numbers of the
        container's user, `mode` are the files' permission bits.

        Raises:
            CredspecError: `lease-directory-missing` if it is not there or not on a tmpfs,
                `lease-directory-full`, `lease-directory-unwritable`.
        """
        with self._opened() as directory_fd, ExitStack() as stack:
            try:
                self._let_in(directory_fd, uid, gid)
            except OSError as error:
                raise not_written(self.path, error) from None
            sizes = {name: len(content) for name, content in files.items()}
            room = stack.enter_context(FreeSpace(directory_fd, sizes, uid))
            for name, content in files.items():
                put = partial(replace_file, name, content, mode=mode, dir_fd=directory_fd)
                self._in_room(name, partial(put, owner=(uid, gid)), room)

    def _in_room(self, name: str, put: Callable[[], None], room: FreeSpace) -> None:
        """Put a file there; if need be, free space for it first."""
        while True:
            try:
                put()
            except OSError as error:
                if error.errno in FULL and room.make(name):
                    continue
                taken = room.taken_by_others() if error.errno in FULL else 0
                raise not_written(self.path / name, error, taken, self._make_room) from None
            room.written(name)
            return

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return the contents of files that `write` put there; what is anything else is left out.

        Raises:
            CredspecError: `lease-directory-missing`.
        """
        with self._opened() as directory_fd:
            contents = {name: _content(name, directory_fd) for name in names}
        return {name: content for name, content in contents.items() if content is not None}

    def wipe(self) -> None:
        """Remove every file of it, and empty directories; one that is gone is fine.

        Other directories in it are the container's own and go with the file system.
        """
        with suppress(CredspecError, OSError), self._opened() as directory_fd:
            for name in os.listdir(directory_fd):  # noqa: PTH208 - pathlib has no descriptors
                with suppress(OSError):
                    try:
                        os.unlink(name, dir_fd=directory_fd)
                    except IsADirectoryError:
                        os.rmdir(name, dir_fd=directory_fd)

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; what is gone is fine, as is one that the container made a directory of.

        Raises:
            CredspecError: `lease-directory-missing`, `lease-directory-unwritable`.
        """
        with self._opened() as directory_fd:
            for name in names:
                try:
                    os.unlink(name, dir_fd=directory_fd)
                except (FileNotFoundError, IsADirectoryError):
                    continue
                except OSError as error:
                    raise not_written(self.path / name, error) from None

    def names_without_leftovers(self) -> set[str]:
        """Return the names of the regular files in it; empty if it is gone.

        Files that a run that was killed had not renamed into place yet are removed.
        """
        names = set()
        try:
            with self._opened() as directory_fd, os.scandir(directory_fd) as entries:
                for entry in entries:
                    if LEFTOVER.fullmatch(entry.name) or _OLD_LEFTOVER.fullmatch(entry.name):
                        with suppress(OSError):
                            os.unlink(entry.name, dir_fd=directory_fd)
                    elif entry.is_file(follow_symlinks=False):
                        names.add(entry.name)
        except (CredspecError, OSError):
            return set()
        return names

    def is_there(self) -> bool:
        """Return whether it is there and fit for tickets.

        Raises:
            OSError: it is unknown, as without free descriptors; `means_gone` is False for it.
        """
        try:
            os.close(self._open())
        except CredspecError:
            return False
        except OSError as error:
            if not means_gone(error):
                raise
            return False
        return True

    @property
    def lock(self) -> Path:
        """The file beside it that a process without a container keeps locked while it lives."""
        return self.path.with_name(f"{self.path.name}.lock")

    def is_locked(self) -> bool:
        """Return whether somebody holds a lock (flock(2)) on the file beside it.

        Raises:
            OSError: as `is_there`.
        """
        try:
            with self._opened_parent() as parent:
                fd = os.open(self.lock.name, _OPEN_FILE, dir_fd=parent)
            try:
                if stat.S_ISREG(os.fstat(fd).st_mode):
                    fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            finally:
                os.close(fd)
        except BlockingIOError:
            return True
        except CredspecError:
            return False
        except OSError as error:
            if not means_gone(error):
                raise
        return False

    @contextmanager
    def _opened(self) -> Iterator[int]:
        try:
            fd = self._open()
        except OSError as error:
            raise missing(self.path, error.strerror or str(error)) from None
        try:
            yield fd
        finally:
            os.close(fd)

    def _open(self) -> int:
        """Open it, and refuse one that is not fit for tickets."""
        with self._opened_parent() as parent:
            fd = os.open(self.path.name, DIRECTORY_FLAGS, dir_fd=parent)
            try:
                self._check(fd, parent)
            except BaseException:
                os.close(fd)
                raise
        return fd

    def _opened_parent(self) -> AbstractContextManager[int]:
        """Open the directory above."""
        return opened_directory(self.path.parent)

    def _check(self, fd: int, parent: int) -> None:
        """Refuse a directory that is not in memory.

        Raises:
            CredspecError: `lease-directory-missing`.
        """
        # Without the mount, a ticket would land on the host's /run, outside any limit.
        if os.fstat(fd).st_dev == os.fstat(parent).st_dev:
            raise missing(self.path, "nothing is mounted there")

    def _let_in(self, fd: int, uid: int, gid: int) -> None:
        """Let the container's user into it, who owns it already."""

    @property
    def _make_room(self) -> str:
        """What to do if it is full."""
        return "remove the container's own files from its /run/credspec"


@dataclass(frozen=True, slots=True)
class SharedDirectory(LeaseDirectory):
    """A directory on a tmpfs that holds other things, too.

    Each directory from below `top` down to the one above it must belong to `owner`, who may put
    links in the path: so it is opened step by step. One that `is_owners` was made by `owner`, and
    is handed over to the container's user.
    """

    top: Path
    owner: int
    is_owners: bool = False

    def _opened_parent(self) -> AbstractContextManager[int]:
        def check(fd: int, part: str) -> None:
            if os.fstat(fd).st_uid != self.owner:
                raise missing(self.path, f"{part} is not the user's own")

        parts = self.path.parent.relative_to(self.top).parts
        return opened_directory(self.top, parts, check=check)

    def _check(self, fd: int, parent: int) -> None:
        del parent
        if not is_tmpfs(fd):
            raise missing(self.path, "that is no tmpfs")

    def _let_in(self, fd: int, uid: int, gid: int) -> None:
        if self.is_owners and os.fstat(fd).st_uid == self.owner:
            os.fchown(fd, uid, gid)

    @property
    def _make_room(self) -> str:
        return "free space on that tmpfs, or enlarge it (df, mount)"


def _content(name: str, directory_fd: int) -> bytes | None:
    """Return the content of a file; None of what is gone, no file of its own, or too large."""
    try:
        fd = os.open(name, _OPEN_FILE, dir_fd=directory_fd)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        # A hard link may lead to a file that its user could not read.
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            return None
        # A buffer for the most would be filled by the allocator, on the event loop.
        content = file.read(min(status.st_size, _MOST_FILE_BYTES) + 1)
    return content if len(content) <= _MOST_FILE_BYTES else None
