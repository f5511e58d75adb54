"""A lease logs on with another account, wholly or not at all; the domain is simulated."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
from support.agent.scripted_leases import ScriptedLeases, SimulatedSession, directory_in_memory

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


class Bench(ScriptedLeases):
    """One lease of two accounts, and a session for each reader."""

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

    def files(self) -> dict[str, bytes]:
        place = self.directory / "tree/lease1/account"
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


@pytest.fixture
def directory() -> Iterator[Path]:
    with directory_in_memory() as found:
        yield found


async def made(directory: Path) -> Bench:
    bench = Bench(directory)
    await bench.leases.make(bench.request(1, "WebApp01", "WebApp02"))
    return bench


async def test_each_account_takes_the_place_of_the_one_before_simulated(directory: Path) -> None:
    bench = await made(directory)
    sources = []
    for account in (FIRST, SECOND):
        before = bench.files()
        record = await bench.leases.replace_host_account(LEASE, account, Caller(0, 7))
        assert bench.leases.get(LEASE) is record
        assert list(Journal(directory / "journal").records()) == [record]
        assert record.host_source == {}
        assert bench.held() == {
            ("webapp01", account.user): {LEASE},
            ("webapp02", account.user): {LEASE},
        }
        files = bench.files()
        assert files.keys() == before.keys()
        assert all(files[name] != before[name] for name in files if name.startswith("krb5cc"))
        sources.append(bench.leases._table.sources[LEASE])
    first, second = sources
    assert isinstance(first, GivenAccount)
    assert isinstance(second, GivenAccount)
    assert second.revealed() == SECOND
    with pytest.raises(CredspecError, match="host-account-forgotten"):
        first.revealed()
    lines = bench.audited()
    assert [line["decision"] for line in lines] == ["granted"] * 3
    assert [line.get("host_account", "").partition("#")[0] for line in lines] == [
        "",
        "example.test\\first",
        "example.test\\second",
    ]
    assert lines[-1]["pid"] == 7
    assert "password of" not in bench.audit_log.read_text()
    await bench.leases.release(LEASE)
    with pytest.raises(CredspecError, match="host-account-forgotten"):
        second.revealed()
    assert bench.held() == {}
    await bench.close()


async def test_the_same_account_changes_nothing_simulated(directory: Path) -> None:
    bench = await made(directory)
    record = await bench.leases.replace_host_account(LEASE, FIRST)
    before = bench.state()
    asked = bench.readers["first"].acquired
    assert await bench.leases.replace_host_account(LEASE, FIRST) is record
    assert bench.state() == before
    assert bench.readers["first"].acquired == asked
    assert len(bench.audited()) == 2
    await bench.close()


def not_readable(bench: Bench, _: pytest.MonkeyPatch) -> None:
    bench.readers["second"].readable = ("webapp01",)


def another_policy(bench: Bench, _: pytest.MonkeyPatch) -> None:
    policy = Policy(accounts=("Other",), spec_sources=("raw",))
    bench.readers["second"].during = lambda: bench.leases.policy.replace(policy)


def disk_full(_: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: object, **__: object) -> None:
        raise CredspecError.of("lease-directory-full", "simulated")

    monkeypatch.setattr(LeaseDirectory, "write", write)


def disk_failing(_: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file of several is replaced; then the disk fails once."""
    real, calls = lease_directory.replace_file, iter(range(100))

    def replace_file(*arguments: Any, **options: Any) -> None:
        if next(calls) == 1:
            raise OSError(errno.EIO, "simulated")
        real(*arguments, **options)

    monkeypatch.setattr(lease_directory, "replace_file", replace_file)


def journal_full(_: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: object) -> None:
        raise CredspecError.of("journal-unwritable", "simulated")

    monkeypatch.setattr(Journal, "write", write)


def audit_full(_: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    real = AuditLog.write

    def write(log: AuditLog, event: Event, caller: Caller, **fields: Any) -> None:
        if fields["decision"] == "granted":
            raise CredspecError.of("audit-unwritable", "simulated")
        real(log, event, caller, **fields)

    monkeypatch.setattr(AuditLog, "write", write)


@dataclass(frozen=True)
class Fault:
    """What goes wrong, with which code, and what the audit log has of it."""

    cause: Callable[[Bench, pytest.MonkeyPatch], None]
    code: str
    written: list[str]


@pytest.mark.parametrize("former", [None, FIRST])
@pytest.mark.parametrize(
    "fault",
    [
        Fault(not_readable, "password-not-readable", []),
        Fault(another_policy, "policy-account", []),
        Fault(audit_full, "audit-unwritable", ["denied"]),
        Fault(disk_full, "lease-directory-full", ["granted", "denied"]),
        Fault(disk_failing, "lease-directory-unwritable", ["granted", "denied"]),
        Fault(journal_full, "journal-unwritable", ["granted", "denied"]),
    ],
    ids=lambda fault: fault.code,
)
async def test_whatever_fails_all_stays_as_it_was_simulated(
    directory: Path, monkeypatch: pytest.MonkeyPatch, former: HostAccount | None, fault: Fault
) -> None:
    bench = await made(directory)
    if former is not None:
        await bench.leases.replace_host_account(LEASE, former)
    before, lines = bench.state(), len(bench.audited())
    with monkeypatch.context() as patch:
        fault.cause(bench, patch)
        with pytest.raises(CredspecError, match=fault.code):
            await bench.leases.replace_host_account(LEASE, SECOND)
    after = bench.state()
    assert after == before
    new = bench.audited()[lines:]
    assert [line["decision"] for line in new] == fault.written
    assert all(line["errors"] == [fault.code] for line in new if line["decision"] == "denied")
    await bench.close()


async def test_a_caller_that_goes_leaves_all_as_it_was_simulated(directory: Path) -> None:
    bench = await made(directory)
    before = bench.state()
    task: asyncio.Task[object]
    loop = asyncio.get_running_loop()
    bench.readers["second"].during = lambda: loop.call_soon_threadsafe(task.cancel) and None
    bench.readers["second"].seconds = 0.1
    task = asyncio.create_task(bench.leases.replace_host_account(LEASE, SECOND))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.state() == before
    assert len(bench.leases._locks) == 0
    await bench.close()


async def test_what_may_not_be_replaced_asks_nobody_simulated(directory: Path) -> None:
    bench = await made(directory)
    before = bench.state()
    with pytest.raises(CredspecError, match="lease-not-found"):
        await bench.leases.replace_host_account("2" * 32, SECOND)
    with pytest.raises(CredspecError, match="lease-id-invalid"):
        await bench.leases.replace_host_account("../x", SECOND)
    other = HostAccount("other.test", "second", "password of the second")
    with pytest.raises(CredspecError, match="host-account-other-domain"):
        await bench.leases.replace_host_account(LEASE, other)
    bench.leases.policy.replace(Policy(accounts=("Other",), spec_sources=("raw",)))
    with pytest.raises(CredspecError, match="policy-account"):
        await bench.leases.replace_host_account(LEASE, SECOND)
    assert bench.readers["second"].acquired == 0
    assert bench.state() == before
    await bench.close()
