"""Leases whose whole state can be compared, accounts to log on with, and faults meanwhile."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from credspec.agent.audit import AuditLog, Caller
from credspec.agent.leases import directory as lease_directory
from credspec.agent.leases.directory import LeaseDirectory
from credspec.agent.leases.journal import Journal
from credspec.config.policy import Policy
from credspec.errors import CredspecError, NotPermittedError
from credspec.providers.provider import GivenAccount, HostAccount, HostSource
from credspec.service.events import Event
from credspec.session.domain_session import Acquisition
from support.agent.scripted_leases import ScriptedLeases, SimulatedSession

LEASE = f"{1:032x}"
FIRST = HostAccount("example.test", "first", "password of the first")
SECOND = HostAccount("example.test", "second", "password of the second")
MACHINE = "the machine"


class Readers(SimulatedSession):
    """The session of a reader, who may read some passwords; `during` is called with each."""

    def __init__(self, *readable: str, during: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.readable, self.during = readable, during

    def acquire(self, account: str) -> Acquisition:
        self.during()
        if account not in self.readable:
            raise NotPermittedError.of("password-not-readable", "simulated", where=account)
        return super().acquire(account)

    def acquire_with_keytab(self, account: str) -> Acquisition:
        found = self.acquire(account)
        return replace(found, keytab=b"\x05\x02", keytab_due=found.password_due)


class LeaseBench(ScriptedLeases):
    """Leases of which the first is looked at, and a session for each reader."""

    def __init__(self, directory: Path, policy: Policy | None = None) -> None:
        super().__init__(directory, policy)
        both = ("webapp01", "webapp02")
        self.readers = {name: Readers(*both) for name in (MACHINE, "first", "second")}
        self.identities._domains._open_session = self.opened  # type: ignore[assignment]

    def opened(self, _domain: str, source: HostSource | None) -> Readers:
        if source is None:
            return self.readers[MACHINE]
        assert isinstance(source, GivenAccount)
        return self.readers[source.account.user]

    def held(self) -> dict[tuple[str, str], set[str]]:
        """Return who holds which account as read by whom."""
        return {
            (identity.name.account, _reader(identity.name.source)): identity.holders
            for identity in self.identities.held()
            if identity.holders
        }

    def files(self, number: int = 1) -> dict[str, bytes]:
        place = self.directory / f"tree/lease{number}/account"
        return {path.name: path.read_bytes() for path in place.iterdir()}

    def state(self) -> dict[str, Any]:
        """Return all that there is of the lease."""
        source = self.leases._table.sources[LEASE]
        return {
            "held": self.held(),
            "files": self.files(),
            "record": self.leases.get(LEASE),
            "journal": list(Journal(self.directory / "journal").records()),
            "source": source,
            "password": source.revealed().password if isinstance(source, GivenAccount) else None,
            "secrets": {who: {*held} for who, held in self.leases._table.secrets._held.items()},
        }


def _reader(source: HostSource | None) -> str:
    return source.account.user if isinstance(source, GivenAccount) else MACHINE


def disk_full(_: LeaseBench, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: object, **__: object) -> None:
        raise CredspecError.of("lease-directory-full", "simulated")

    monkeypatch.setattr(LeaseDirectory, "write", write)


def disk_failing(_: LeaseBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file of several is replaced; then the disk fails once."""
    real, calls = lease_directory.replace_file, iter(range(100))

    def replace_file(*arguments: Any, **options: Any) -> None:
        if next(calls) == 1:
            raise OSError(errno.EIO, "simulated")
        real(*arguments, **options)

    monkeypatch.setattr(lease_directory, "replace_file", replace_file)


def journal_full(_: LeaseBench, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: object) -> None:
        raise CredspecError.of("journal-unwritable", "simulated")

    monkeypatch.setattr(Journal, "write", write)


def audit_full(_: LeaseBench, monkeypatch: pytest.MonkeyPatch) -> None:
    real = AuditLog.write

    def write(log: AuditLog, event: Event, caller: Caller, **fields: Any) -> None:
        if fields["decision"] == "granted":
            raise CredspecError.of("audit-unwritable", "simulated")
        real(log, event, caller, **fields)

    monkeypatch.setattr(AuditLog, "write", write)
