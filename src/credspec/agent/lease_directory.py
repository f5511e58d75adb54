"""The directory that a container sees as ``/run/credspec``, made by the shim, filled by the agent.

For containers of the host's own engines it is a small tmpfs of its own. For those of an
unprivileged user it is in that user's runtime directory, a tmpfs too, since no mount of theirs
would be seen here. The container's user, and that user, may change anything in it: so nothing is
followed, nothing in it is trusted, and files are made under fresh names and renamed into place.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from credspec.agent.lease_room import FULL, LeaseRoom
from credspec.errors import CredspecError

USERS: Final = Path("/run/user")
"""Where the users' runtime directories are (file-hierarchy(7))."""

_GONE: Final = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL}
)
_UNFINISHED: Final = re.compile(r"\.krb5[^/]*\.[0-9a-f]{16}")
_OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_ESCAPES: Final = {ord(each): f"\\{ord(each):03o}" for each in " \t\n\\"}
_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class LeaseDirectory:
    """A lease's directory; `user` is whose runtime directory it is in, None for the host's own.

    With `tree` it is two steps below that directory, which is on a tmpfs of root's.
    """

    path: Path
    user: int | None = None
    tree: Path | None = None

    @classmethod
    def of(
        cls, leases_directory: Path, lease_id: str, user: int | None, place: str | None = None
    ) -> LeaseDirectory:
        """Return the directory of a lease, whose id must be a valid one.

        `place` names another one, ``TREE/LEASE/ACCOUNT``.
        """
        if place is not None:
            return cls(Path(place), tree=Path(place).parents[1])
        if user is None:
            return cls(leases_directory / lease_id)
        return cls(USERS / str(user) / "credspec" / "leases" / lease_id, user)

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
                if self.user is not None and os.fstat(directory_fd).st_uid == self.user:
                    # Its user made it; the container's user must get in.
                    os.fchown(directory_fd, uid, gid)
            except OSError as error:
                raise _not_written(self.path, error) from None
            sizes = {name: len(content) for name, content in files.items()}
            room = stack.enter_context(LeaseRoom(directory_fd, sizes, uid))
            for name, content in files.items():
                put = partial(_replace, directory_fd, name, content, (uid, gid), mode)
                self._in_room(name, put, room)

    def _in_room(self, name: str, put: Callable[[], None], room: LeaseRoom) -> None:
        """Put a file there; if need be, free space for it first."""
        while True:
            try:
                put()
            except OSError as error:
                if error.errno in FULL and room.make(name):
                    continue
                taken = room.taken_by_others() if error.errno in FULL else 0
                raise _not_written(
                    self.path / name, error, taken, is_shared=self._is_shared
                ) from None
            room.written(name)
            return

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

    def remove_leftovers(self) -> None:
        """Remove the files that a run that was killed had not renamed into place yet."""
        with suppress(CredspecError, OSError), self._opened() as directory_fd:
            for name in os.listdir(directory_fd):  # noqa: PTH208 - pathlib has no descriptors
                if _UNFINISHED.fullmatch(name):
                    with suppress(OSError):
                        os.unlink(name, dir_fd=directory_fd)

    def names(self) -> set[str]:
        """Return the names of the regular files in it; empty if it is gone."""
        try:
            with self._opened() as directory_fd, os.scandir(directory_fd) as entries:
                return {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}
        except (CredspecError, OSError):
            return set()

    def is_there(self) -> bool:
        """Return whether it is there and fit for tickets.

        Raises:
            OSError: it is unknown, as without free descriptors; `means_gone` is False for it.
        """
        try:
            with ExitStack() as stack:
                self._open(stack)
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
        with ExitStack() as stack:
            try:
                parent = self._open_parent(stack)
                fd = os.open(self.lock.name, _OPEN_FILE, dir_fd=parent)
                stack.callback(os.close, fd)
                if stat.S_ISREG(os.fstat(fd).st_mode):
                    fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            except CredspecError:
                return False
            except OSError as error:
                if not means_gone(error):
                    raise
                return False
        return False

    @contextmanager
    def _opened(self) -> Iterator[int]:
        with ExitStack() as stack:
            try:
                fd = self._open(stack)
            except OSError as error:
                raise _missing(self.path, error.strerror or str(error)) from None
            yield fd

    def _open(self, stack: ExitStack) -> int:
        parent = self._open_parent(stack)
        fd = os.open(self.path.name, _OPEN, dir_fd=parent)
        stack.callback(os.close, fd)
        if self._is_shared and not is_tmpfs(fd):
            raise _missing(self.path, "that is no tmpfs")
        # Without the mount, a ticket would land on the host's /run, outside any limit.
        if not self._is_shared and os.fstat(fd).st_dev == os.fstat(parent).st_dev:
            raise _missing(self.path, "nothing is mounted there")
        return fd

    @property
    def _is_shared(self) -> bool:
        """Whether its tmpfs holds other things, too."""
        return self.user is not None or self.tree is not None

    def _open_parent(self, stack: ExitStack) -> int:
        """Open the directory above; a user's step by step, since it may put links in the path."""
        if self.user is None and self.tree is None:
            fd = os.open(self.path.parent, _OPEN)
            stack.callback(os.close, fd)
            return fd
        top, owner = (USERS, self.user) if self.tree is None else (self.tree, os.geteuid())
        fd = os.open(top, _OPEN)
        stack.callback(os.close, fd)
        for part in self.path.parent.relative_to(top).parts:
            fd = os.open(part, _OPEN, dir_fd=fd)
            stack.callback(os.close, fd)
            if os.fstat(fd).st_uid != owner:
                raise _missing(self.path, f"{part} is not the user's own")
        return fd


def means_gone(error: OSError) -> bool:
    """Return whether an error says that a path names nothing, not that it cannot be looked at.

    A network or user's file system that does not answer, or a lack of descriptors or memory, says
    nothing of what is there.
    """
    return error.errno in _GONE


@dataclass(frozen=True, slots=True)
class LeaseDirectories:
    """Where the host's own leases are.

    Those of `containers` are in a directory that only root may enter, whatever the mode of their
    files: a container has its tickets by a bind mount, and no other user of the host needs a path
    to them. Those of `processes` are in one that their users pass through.
    """

    containers: Path
    processes: Path

    def of(
        self, lease_id: str, runtime_state: str, user: int | None, place: str | None = None
    ) -> LeaseDirectory:
        """Return the directory of a lease; the id and the rest are as in a lease's record."""
        is_process = runtime_state == str(self.processes / f"{lease_id}.lock")
        parent = self.processes if is_process else self.containers
        return LeaseDirectory.of(parent, lease_id, user, place)

    def wipe(self, lease_id: str) -> None:
        """Remove the files of a lease of which only the id is known."""
        for parent in (self.containers, self.processes):
            LeaseDirectory.of(parent, lease_id, None).wipe()

    def mounted(self) -> frozenset[str]:
        """Return the ids of the leases that have something mounted."""
        return mounted_below(self.containers) | mounted_below(self.processes)

    def close_to_others(self, records: Iterable[tuple[str, str]]) -> bool:
        """Let only root enter the containers' directory; return whether that is so.

        `records` are ids and runtime states of all leases. Earlier versions kept processes' leases
        in there, and left it open for their users: it stays open until the last of those ends.
        """
        if any(state == str(self.containers / f"{lease}.lock") for lease, state in records):
            return False
        with suppress(FileNotFoundError):
            if self.containers.stat().st_mode & 0o077:
                self.containers.chmod(0o700)
        return True


def mounted_below(
    directory: Path, *, mounts: Path = Path("/proc/self/mountinfo")
) -> frozenset[str]:
    """Return the names in a directory on which something is mounted (proc_pid_mountinfo(5)).

    One look serves all leases.
    """
    prefix = os.path.realpath(directory).rstrip("/").translate(_ESCAPES) + "/"
    lines = mounts.read_text("utf-8", "surrogateescape").split("\n")
    points = (line.split(" ", 5)[4] for line in lines if line)
    return frozenset(p.removeprefix(prefix) for p in points if p.startswith(prefix))


def is_tmpfs(fd: int) -> bool:
    """Return whether an open file is on a tmpfs."""
    device = os.fstat(fd).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split(" ")[2] == number:
            return rest.split(" ")[0] == "tmpfs"
    return False


def _replace(
    directory_fd: int, name: str, content: bytes, owner: tuple[int, int], mode: int
) -> None:
    temporary = f".{name}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600, dir_fd=directory_fd)
    try:
        with os.fdopen(fd, "wb") as file:
            # In this order: the agent may give files away, but not change those of others.
            os.fchmod(fd, mode)
            os.fchown(fd, *owner)
            file.write(content)
        os.rename(temporary, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=directory_fd)
        raise


def _not_written(
    path: Path, error: OSError, taken_by_others: int = 0, *, is_shared: bool = False
) -> CredspecError:
    full = error.errno in FULL
    found = error.strerror or str(error)
    if taken_by_others:
        found += f"; other files take {taken_by_others // 1024} KiB of that file system"
    room = "free space on that tmpfs, or enlarge it (df, mount)"
    if not is_shared:
        room = "remove the container's own files from its /run/credspec"
    return CredspecError.of(
        "lease-directory-full" if full else "lease-directory-unwritable",
        found,
        where=str(path),
        remedy=room if full else "",
    )


def _missing(directory: Path, found: str) -> CredspecError:
    return CredspecError.of(
        "lease-directory-missing",
        found,
        where=str(directory),
        expected="the tmpfs that credspec-runtime mounts, or a directory in the user's own",
        remedy="if the agent has a mount namespace of its own, mounts of the host must reach it",
    )
