# ruff: noqa: ARG002, ARG003 - a home is given more than these need
"""A kind of lease that does not exist yet is one class, and all the rest of the agent serves it.

Two are made here: a volume, such as a CSI driver publishes, and a lease without any file. They go
through all that a lease can meet: granted, renewed, adopted after a restart, swept, released.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self

import pytest

from credspec.agent.leases import homes
from credspec.agent.leases.directory import SharedDirectory
from credspec.agent.leases.home import HomeRecord, LeaseRoots, Look
from credspec.agent.leases.homes import KINDS, TreeHome
from credspec.config.policy import Policy
from support.agent.scripted_leases import ScriptedLeases, directory_in_memory


class VolumeHome(TreeHome):
    """A directory that somebody else published; it lives until that is unpublished."""

    _PREFIX = "volume:"

    @staticmethod
    def takes(place: str | None) -> bool:
        return place is not None and place.startswith(VolumeHome._PREFIX)

    @classmethod
    def of(cls, record: HomeRecord, roots: LeaseRoots) -> Self | None:
        path = Path((record.place or "").removeprefix(cls._PREFIX))
        return cls(record, SharedDirectory(path, path.parent, os.geteuid()))

    has_network = False

    @property
    def inside(self) -> str | None:
        return "/var/run/secrets/credspec"


class FilelessHome:
    """Tickets that a process is given by a socket; it lives while that is in the list."""

    tickets: ClassVar[dict[str, dict[str, bytes]]] = {}
    sockets: ClassVar[set[str]] = set()

    def __init__(self, record: HomeRecord) -> None:
        self._place = record.place or ""
        self._state = record.runtime_state
        self.user = record.user

    @staticmethod
    def takes(place: str | None) -> bool:
        return place is not None and place.startswith("socket:")

    @classmethod
    def of(cls, record: HomeRecord, roots: LeaseRoots) -> Self | None:
        return cls(record)

    has_network = False

    @property
    def inside(self) -> str | None:
        return None

    def checked_state(self, uid: int, gid: int) -> str:
        return self._state

    def write(self, files: dict[str, bytes], *, uid: int, gid: int, mode: int) -> None:
        self.tickets[self._place] = self.tickets.get(self._place, {}) | files

    def read(self, names: AbstractSet[str]) -> dict[str, bytes]:
        return {n: c for n, c in self.tickets.get(self._place, {}).items() if n in names}

    def remove(self, names: AbstractSet[str]) -> None:
        for name in names:
            self.tickets.get(self._place, {}).pop(name, None)

    def holds(self, names: AbstractSet[str]) -> bool:
        return names <= self.tickets.get(self._place, {}).keys()

    def wipe(self) -> None:
        self.tickets.pop(self._place, None)

    def is_alive(self, look: Look) -> bool:
        return self._place in self.sockets


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(homes, "KINDS", (VolumeHome, FilelessHome, *KINDS))
    with directory_in_memory() as found:
        yield found


@pytest.mark.parametrize("uid", [None, 4711])
@pytest.mark.parametrize("kind", ["volume", "socket"])
async def test_a_new_kind_is_one_class(directory: Path, kind: str, uid: int | None) -> None:
    volume = directory / "volume"
    volume.mkdir()
    place = f"{kind}:{volume}"
    FilelessHome.sockets.add(place)

    def ticket() -> bytes | None:
        if kind == "volume":
            path = volume / "krb5cc"
            return path.read_bytes() if path.exists() else None
        return FilelessHome.tickets.get(place, {}).get("krb5cc")

    bench = ScriptedLeases(directory)
    bench.leases.policy.policy = allowing(bench, uid)
    record = await bench.leases.make(bench.request(1, uid=uid, place=place))
    first = ticket()
    assert first
    assert record.place == place

    (identity,) = bench.identities.held()
    await bench.identities.refresh(identity.name)
    await asyncio.gather(*bench.leases._background.tasks)
    second = ticket()
    assert second not in {None, first}
    await bench.close()

    again = ScriptedLeases(directory)
    again.leases.policy.policy = allowing(again, uid)
    await again.leases.adopt()
    assert [found.lease_id for found in again.leases.all()] == [record.lease_id]
    assert await again.leases.sweep() == 0
    assert ticket() == second, "the domain is asked in its time"

    if kind == "volume":
        volume.rename(directory / "unpublished")
    else:
        FilelessHome.sockets.discard(place)
    assert await again.leases.sweep() == 1
    assert again.leases.all() == []
    await again.close()
    assert ticket() is None
    decisions = [line["decision"] for line in again.audited()]
    assert decisions == ["granted", "released"]


async def test_a_record_of_a_kind_that_is_gone_costs_its_own_lease(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a downgrade: the older agent does not know the kind."""
    bench = ScriptedLeases(directory)
    FilelessHome.sockets.add("socket:x")
    await bench.leases.make(bench.request(1, place="socket:x"))
    await bench.leases.make(bench.request(2))
    await bench.close()
    monkeypatch.undo()
    again = ScriptedLeases(directory)
    await again.leases.adopt()
    assert [record.container for record in again.leases.all()] == ["container2"]
    assert [path.stem for path in (directory / "journal").iterdir()] == [f"{2:032x}"]
    await again.close()


def allowing(bench: ScriptedLeases, uid: int | None) -> Policy:
    uids = frozenset() if uid is None else frozenset({uid})
    return replace(bench.leases.policy.policy, grpc_uids=uids)
