"""The kinds of homes: containers and processes of host and users, pods' volumes, another's tree.

A new kind is one more class that has what `Home` and `Kind` say, and its entry in `KINDS`: nothing
else tells kinds apart.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from credspec.agent.leases import subordinate_ids, users_state
from credspec.agent.leases.directory import LeaseDirectory, SharedDirectory
from credspec.agent.leases.home import Home, HomeRecord, Kind, LeaseRoots, Look
from credspec.agent.leases.mounts import mounted_below
from credspec.contract.names import MOUNT_POINT

_TREE_PARTS: Final = 3


class _DirectoryHome:
    """A home whose files are in a directory."""

    def __init__(self, record: HomeRecord, directory: LeaseDirectory) -> None:
        self.directory: Final = directory
        self.user: Final = record.user
        self._lease_id = record.lease_id
        self._state = record.runtime_state

    @staticmethod
    def takes(place: str | None) -> bool:
        return place is None

    has_network: bool = True

    @property
    def inside(self) -> str | None:
        return MOUNT_POINT

    def checked_state(self, uid: int, gid: int) -> str:
        del uid, gid
        return self._state

    def write(self, files: dict[str, bytes], *, uid: int, gid: int, mode: int) -> None:
        self.directory.write(files, uid=uid, gid=gid, mode=mode)

    def read(self, names: AbstractSet[str]) -> dict[str, bytes]:
        return self.directory.read(names)

    def remove(self, names: AbstractSet[str]) -> None:
        self.directory.remove(names)

    def holds(self, names: AbstractSet[str]) -> bool:
        return names <= self.directory.names_without_leftovers()

    def wipe(self) -> None:
        self.directory.wipe()

    def is_there(self, look: Look) -> bool:
        """Return whether the directory is there, as far as `look` tells; raises `OSError`."""
        del look
        return self.directory.is_there()


class HostHome(_DirectoryHome):
    """A container of the host's own engines: a small tmpfs that the shim mounts."""

    @classmethod
    def of(cls, record: HomeRecord, roots: LeaseRoots) -> Self | None:
        """See `Kind`."""
        if record.user is not None:
            return None
        return cls(record, LeaseDirectory(roots.containers / record.lease_id))

    def is_there(self, look: Look) -> bool:
        """Look at the list of mounts first."""
        # The shim mounts before it asks for a lease, and unmounts even if no agent runs.
        if self._lease_id in look.mounted:
            return True
        return look.is_new and self.directory.is_there()

    def is_alive(self, look: Look) -> bool:
        """See `Home`."""
        return self.is_there(look) and (look.is_new or look.states.is_there(self._state))


class VolumeHome(HostHome):
    """A volume of a pod: a small tmpfs that the CSI driver mounts, and binds into the pod.

    Its runtime's state is that directory itself. When a pod ends is the kubelet's to know, which
    has the driver unmount the volume: so the agent needs no access to the kubelet's directories,
    where the secrets of all pods are.
    """

    has_network: bool = False

    @classmethod
    def of(cls, record: HomeRecord, roots: LeaseRoots) -> Self | None:
        """See `Kind`."""
        # Paths are made of what may be one only: this is asked of every lease at a start.
        if record.user is not None or not record.runtime_state.endswith(record.lease_id):
            return None
        directory = LeaseDirectory(roots.volumes / record.lease_id)
        if record.runtime_state != str(directory.path):
            return None
        return cls(record, directory)

    def is_alive(self, look: Look) -> bool:
        """See `Home`."""
        return self.is_there(look)


class UserHome(_DirectoryHome):
    """A container of an unprivileged user: a directory in that user's runtime directory.

    That is a tmpfs, too; a mount of the user's would not be seen here.
    """

    def __init__(self, record: HomeRecord, user: int, users: Path) -> None:
        path = users / str(user) / "credspec" / "leases" / record.lease_id
        super().__init__(record, SharedDirectory(path, users, user, is_owners=True))
        self._user = user
        self._users = users

    @classmethod
    def of(cls, record: HomeRecord, roots: LeaseRoots) -> Self | None:
        """See `Kind`."""
        return None if record.user is None else cls(record, record.user, roots.users)

    def checked_state(self, uid: int, gid: int) -> str:
        """See `Home`."""
        subordinate_ids.check_owner(self._user, uid, gid)
        return users_state.checked_state(self._user, self._state, users=self._users)

    def is_alive(self, look: Look) -> bool:
        """See `Home`."""
        # What a user's own runtime writes proves nothing to others.
        return self.is_there(look) and (
            look.is_new or users_state.is_there(self._user, self._state, users=self._users)
        )


class _ProcessHome(_DirectoryHome):
    """A process without a container, which keeps a file beside the directory locked."""

    @property
    def inside(self) -> str | None:
        """See `Home`."""
        return str(self.directory.path)

    def is_alive(self, look: Look) -> bool:
        """See `Home`."""
        return self.is_there(look) and self.directory.is_locked()


class HostProcessHome(_ProcessHome, HostHome):
    """A process of the host's own: a tmpfs among those of processes.

    Earlier versions had them among the containers'.
    """

    @classmethod
    def of(cls, record: HomeRecord, roots: LeaseRoots) -> Self | None:
        """See `Kind`."""
        if record.user is not None or not record.runtime_state.endswith(".lock"):
            return None
        for parent in (roots.processes, roots.containers):
            directory = LeaseDirectory(parent / record.lease_id)
            if record.runtime_state == str(directory.lock):
                return cls(record, directory)
        return None


class UserProcessHome(_ProcessHome, UserHome):
    """A process of an unprivileged user: a directory as a container's."""

    @classmethod
    def of(cls, record: HomeRecord, roots: LeaseRoots) -> Self | None:
        """See `Kind`."""
        if record.user is None:
            return None
        home = cls(record, record.user, roots.users)
        return home if record.runtime_state == str(home.directory.lock) else None


class TreeHome(_DirectoryHome):
    """A lease of credentials-fetcher's: a directory ``TREE/LEASE/ACCOUNT`` of root's, on a tmpfs.

    It is alive as long as the directory is there; what its programs see of it is not known. Who
    owns the files is in the agent's configuration.
    """

    has_network: bool = False

    @staticmethod
    def takes(place: str | None) -> bool:
        """See `Kind`."""
        if place is None or "\0" in place:
            return False
        parts = place.split("/")
        return (
            place.startswith("/")
            and len(parts) > _TREE_PARTS
            and not {"", ".", ".."} & {*parts[1:]}
        )

    @classmethod
    def of(cls, record: HomeRecord, roots: LeaseRoots) -> Self | None:
        """See `Kind`."""
        del roots
        if record.place is None:
            return None
        path = Path(record.place)
        return cls(record, SharedDirectory(path, path.parents[1], os.geteuid()))

    @property
    def inside(self) -> str | None:
        """See `Home`."""
        return None

    def is_alive(self, look: Look) -> bool:
        """See `Home`."""
        return self.is_there(look)


KINDS: Final[tuple[type[Kind], ...]] = (
    TreeHome,
    HostProcessHome,
    UserProcessHome,
    VolumeHome,
    HostHome,
    UserHome,
)
"""The kinds of homes; the first that has a lease says where it is."""


def is_place(value: object) -> bool:
    """Return whether a record's `place` is one that some kind of home knows."""
    return (value is None or isinstance(value, str)) and any(kind.takes(value) for kind in KINDS)


class Homes(LeaseRoots):
    """The homes of all leases."""

    def of(self, record: HomeRecord) -> Home:
        """Return the home of a lease.

        Raises:
            ValueError: no kind of home knows it.
        """
        takers = (each for each in KINDS if each.takes(record.place))
        for taker in takers:
            home = taker.of(record, self)
            if home is not None:
                return home
        raise ValueError("no kind of home")

    def wipe(self, lease_id: str) -> None:
        """Remove the files of a lease of which only the id is known."""
        for parent in self._mounted:
            LeaseDirectory(parent / lease_id).wipe()

    def is_mounted(self, lease_id: str) -> bool:
        """Return whether this process sees what is mounted for a container's lease."""
        return LeaseDirectory(self.containers / lease_id).is_there()

    def is_removed(self, record: HomeRecord) -> bool:
        """Return whether a lease is one of the host's containers, and its directory is gone."""
        directory = self.containers / record.lease_id
        home = self.of(record)
        is_containers = isinstance(home, HostHome) and home.directory.path == directory
        return is_containers and not os.path.lexists(directory)

    def mounted(self) -> frozenset[str]:
        """Return the ids of the leases that have something mounted."""
        return mounted_below(*self._mounted)

    @property
    def _mounted(self) -> tuple[Path, ...]:
        """The directories in which each lease is a mount of its own."""
        return (self.containers, self.processes, self.volumes)

    def close_to_others(self, records: Iterable[HomeRecord]) -> bool:
        """Let only root enter the containers' directory; return whether that is so.

        `records` are those of all leases. Earlier versions kept processes' leases in there, and
        left it open for their users: it stays open until the last of those ends.
        """
        containers = f"{self.containers}/"
        if any(record.runtime_state == f"{containers}{record.lease_id}.lock" for record in records):
            return False
        with suppress(FileNotFoundError):
            if self.containers.stat().st_mode & 0o077:
                self.containers.chmod(0o700)
        return True
