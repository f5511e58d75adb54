"""What a home is: where a lease's files are, whose they are, how its container shows that it lives.

The kinds that there are, and what a new one takes, are in `credspec.agent.leases.homes`.
"""

from __future__ import annotations

from collections.abc import Container
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from credspec.agent.leases.container_state import ContainerStates
from credspec.agent.leases.users_state import USERS


class HomeRecord(Protocol):
    """What requests and the journal say of a lease's home; each kind knows its own.

    `runtime_state` is the directory in which the runtime keeps the container as long as it exists,
    or the lock of a process. `user` is the unprivileged user who asked, None for the host's own.
    `place` is where the files are, None where the other three tell.
    """

    @property
    def lease_id(self) -> str:
        """The id, which must be a valid one."""

    @property
    def runtime_state(self) -> str:
        """The runtime's directory, or a lock."""

    @property
    def user(self) -> int | None:
        """The unprivileged user."""

    @property
    def place(self) -> str | None:
        """Where the files are."""


class Look(NamedTuple):
    """What is known when it is looked whether containers live.

    `mounted` are the ids of the host's leases on whose directories something is mounted, `states`
    what runtimes wrote down. A lease that `is_new` may have a container that is still being made.
    """

    mounted: Container[str]
    states: ContainerStates
    is_new: bool


class Home(Protocol):
    """Where one lease lives. All but `user` and `inside` may block, see `user`."""

    @property
    def user(self) -> int | None:
        """The unprivileged user who can make these calls block, None if nobody can.

        A user's are made in a thread of that user, with a deadline.
        """

    @property
    def inside(self) -> str | None:
        """The directory as the lease's programs see it; None if that is not known."""

    @property
    def has_network(self) -> bool:
        """Whether who made the lease can open sockets in the network of its programs."""

    def checked_state(self, uid: int, gid: int) -> str:
        """Return the runtime's state as it is kept, if all of it is the user's to name.

        `uid` and `gid` are to own the files.

        Raises:
            NotPermittedError: `owner-not-permitted`, `runtime-state-not-permitted`.
        """

    def write(self, files: dict[str, bytes], *, uid: int, gid: int, mode: int) -> None:
        """Put files there, each replaced at once, for an owner on this host and with a mode.

        Raises:
            CredspecError: of what failed; what was there stays.
        """

    def read(self, names: AbstractSet[str]) -> dict[str, bytes]:
        """Return those of these files that are there.

        Raises:
            CredspecError: they cannot be read.
        """

    def remove(self, names: AbstractSet[str]) -> None:
        """Remove these files; what is gone is fine.

        Raises:
            CredspecError: one cannot be removed.
        """

    def holds(self, names: AbstractSet[str]) -> bool:
        """Return whether all files of these names are there.

        What an earlier run had begun to write is removed; nothing may be being written now.
        """

    def wipe(self) -> None:
        """Remove all files; what is gone is fine."""

    def is_alive(self, look: Look) -> bool:
        """Return whether the container may live.

        Raises:
            OSError: it is unknown now.
        """


@dataclass(frozen=True, slots=True)
class LeaseRoots:
    """Where leases are.

    Those of the host's `containers` are in a directory that only root may enter, whatever the mode
    of their files: a container has its tickets by a bind mount, and no other user of the host needs
    a path to them. Those of `processes` are in one that their users pass through. Below `users`
    each user has a runtime directory of its own. The `volumes` of pods are in one for root only,
    as containers' are: a pod has its own by a bind mount.
    """

    containers: Path
    processes: Path
    users: Path = USERS
    volumes: Path = Path("/run/credspec/volumes")


class Kind(Protocol):
    """A class of homes."""

    @staticmethod
    def takes(place: str | None) -> bool:
        """Return whether `HomeRecord.place` is one of this kind's."""

    @classmethod
    def of(cls, record: HomeRecord, roots: LeaseRoots) -> Home | None:
        """Return a lease's home, None if it is of another kind; `place` is one that it takes."""
