"""Space in a lease's directory for its next files, where its present ones have grown.

Programs keep the tickets of services in the cache that they were given, so that it grows, and fills
its small tmpfs one day. It is to be replaced all the same: what is in it goes first.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What the kernel says where blocks, inodes or a quota are used up."""

_BLOCK: Final = 512  # of st_blocks, see inode(7)
_PAGE: Final = os.sysconf("SC_PAGESIZE")
_OPEN: Final = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class LeaseRoom:
    """Gives up files of a lease that are to be replaced, one after the other, until there is space.

    `directory_fd` is the lease's directory, `sizes` the bytes of each file that is to be written,
    `uid` owns the lease's files. A context manager, since it keeps descriptors of what it removed.
    """

    def __init__(self, directory_fd: int, sizes: dict[str, int], uid: int) -> None:
        self._directory_fd = directory_fd
        self._sizes = dict(sizes)
        self._uid = uid
        self._present: dict[str, os.stat_result] | None = None
        self._removed: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while self._removed:
            os.close(self._removed.pop())

    def written(self, name: str) -> None:
        """Take note that a file was replaced: it is not given up any more."""
        del self._sizes[name]
        if self._present is not None:
            self._present.pop(name, None)

    def make(self, name: str) -> bool:
        """Give something up so that `name` may be written; return False if nothing is left.

        Nothing is given up if all of it together would not free enough space: a container keeps
        its old ticket rather than none.
        """
        if self._present is None:
            self._present = self._look()
            if not self._is_enough(self._present.values()):
                self._present.clear()
        if self._present:
            # Its own first, then the one that frees most.
            first = max(
                self._present, key=lambda each: (each == name, self._present_blocks(each), each)
            )
            self._give_up(first, self._present.pop(first))
            return True
        if not self._removed:
            return False
        # A program that has a removed file open keeps its blocks.
        fd = self._removed.pop()
        with suppress(OSError):
            os.ftruncate(fd, 0)
        os.close(fd)
        return True

    def taken_by_others(self) -> int:
        """Return how many bytes other files than the lease's own take, as far as it shows."""
        found = os.fstatvfs(self._directory_fd)
        own = sum(state.st_blocks * _BLOCK for state in self._look().values())
        return max(0, (found.f_blocks - found.f_bfree) * found.f_frsize - own)

    def _present_blocks(self, name: str) -> int:
        return 0 if self._present is None else self._present[name].st_blocks

    def _look(self) -> dict[str, os.stat_result]:
        present = {}
        for name in self._sizes:
            with suppress(OSError):
                state = os.stat(name, dir_fd=self._directory_fd, follow_symlinks=False)
                if not stat.S_ISDIR(state.st_mode):
                    present[name] = state
        return present

    def _is_enough(self, present: Iterable[os.stat_result]) -> bool:
        found, there = os.fstatvfs(self._directory_fd), list(present)
        bytes_free = found.f_bavail * found.f_frsize + sum(s.st_blocks * _BLOCK for s in there)
        needed = sum(-(-size // _PAGE) * _PAGE for size in self._sizes.values())
        # A file system that counts no inodes says that it has none.
        inodes = found.f_files == 0 or found.f_favail + len(there) > 0
        return bytes_free >= needed and inodes

    def _give_up(self, name: str, seen: os.stat_result) -> None:
        with suppress(OSError):
            if stat.S_ISREG(seen.st_mode) and seen.st_uid == self._uid:
                self._removed.append(os.open(name, _OPEN, dir_fd=self._directory_fd))
        with suppress(OSError):
            os.unlink(name, dir_fd=self._directory_fd)
        if self._removed and not self._is_lease_s(self._removed[-1]):
            os.close(self._removed.pop())

    def _is_lease_s(self, fd: int) -> bool:
        """Return whether what was opened is a file of the lease's, which has no name any more."""
        state = os.fstat(fd)
        return stat.S_ISREG(state.st_mode) and state.st_uid == self._uid and state.st_nlink == 0
