"""A lease logs on with another account, wholly or not at all; the domain is simulated."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from credspec.agent.audit import Caller
from credspec.agent.leases.journal import Journal
from credspec.config.policy import Policy
from credspec.errors import CredspecError
from credspec.providers.provider import GivenAccount, HostAccount
from support.agent.lease_bench import (
    FIRST,
    LEASE,
    SECOND,
    LeaseBench,
    audit_full,
    disk_failing,
    disk_full,
    journal_full,
)
from support.agent.scripted_leases import directory_in_memory


@pytest.fixture
def directory() -> Iterator[Path]:
    with directory_in_memory() as found:
        yield found


async def made(directory: Path) -> LeaseBench:
    bench = LeaseBench(directory)
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


def not_readable(bench: LeaseBench, _: pytest.MonkeyPatch) -> None:
    bench.readers["second"].readable = ("webapp01",)


def another_policy(bench: LeaseBench, _: pytest.MonkeyPatch) -> None:
    policy = Policy(accounts=("Other",), spec_sources=("raw",))
    bench.readers["second"].during = lambda: bench.leases.policy.replace(policy)


@dataclass(frozen=True)
class Fault:
    """What goes wrong, with which code, and what the audit log has of it."""

    cause: Callable[[LeaseBench, pytest.MonkeyPatch], None]
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
