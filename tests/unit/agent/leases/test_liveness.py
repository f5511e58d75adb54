"""Whether containers live, found out without waiting for files that never answer."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from credspec.agent.blocking_calls import BlockingCalls
from credspec.agent.leases import users_state
from credspec.agent.leases.directory import LeaseDirectory
from credspec.agent.leases.homes import Homes
from credspec.agent.leases.liveness import Liveness
from credspec.agent.leases.record import LeaseRecord

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NOW_SECONDS = 10_000.0  # of the clock that is never set
RECORD = LeaseRecord(
    lease_id="0" * 32,
    container="c1",
    runtime_state="/run/runc/c1",
    uid=1000,
    gid=1000,
    domain="example.test",
    default_account="WebApp01",
    accounts=("WebApp01",),
    created=NOW - timedelta(hours=1),
)


def of_user(user: int) -> LeaseRecord:
    return replace(
        RECORD, lease_id=f"{user:032x}", user=user, runtime_state=f"/run/user/{user}/state"
    )


@pytest.fixture
def release() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def liveness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: threading.Event) -> Liveness:
    """Users' directories are there, user 1's state never answers, user 2's is gone (simulated)."""

    def state(user: int, _: str, **__: Path) -> bool:
        if user == 1:
            release.wait(60)
        return user != 2

    monkeypatch.setattr(LeaseDirectory, "is_there", lambda _: True)
    monkeypatch.setattr(users_state, "is_there", state)
    return Liveness(Homes(tmp_path, tmp_path), BlockingCalls(), monotonic=lambda: NOW_SECONDS)


async def test_files_that_never_answer_cost_their_own_user(liveness: Liveness) -> None:
    records = [of_user(user) for user in (1, 2, 3)]
    gone = await liveness.gone(records, seconds=0.2)
    assert [record.user for record in gone] == [2]
    # Also the next time, when its thread still waits.
    gone = await liveness.gone(records, seconds=0.2)
    assert [record.user for record in gone] == [2]


async def test_the_loop_goes_on_meanwhile(liveness: Liveness) -> None:
    looking = asyncio.create_task(liveness.gone([of_user(1)], seconds=0.3))
    turns = 0
    while not looking.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert turns > 10


@pytest.mark.parametrize("number", [5, 13, 24, 116])
async def test_what_cannot_be_looked_at_is_not_gone_simulated(
    liveness: Liveness, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fails(_: object) -> bool:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(LeaseDirectory, "is_there", fails)
    assert await liveness.gone([of_user(2), of_user(3)]) == []


async def test_without_a_list_of_mounts_no_lease_of_the_host_is_gone_simulated(
    liveness: Liveness, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await liveness.gone([RECORD]) == [RECORD]

    def fails(_: object) -> frozenset[str]:
        raise OSError(24, os.strerror(24))

    monkeypatch.setattr(Homes, "mounted", fails)
    assert await liveness.gone([RECORD]) == []


@pytest.mark.parametrize(
    ("age", "is_gone"), [(None, True), (-60, True), (0, False), (60, False), (3600, True)]
)
async def test_only_a_lease_that_was_made_just_now_may_lack_its_container(
    liveness: Liveness, age: int | None, is_gone: bool
) -> None:
    """The time of day has no say: if it was set back, leases of dead containers would live on."""
    made = None if age is None else NOW_SECONDS - age
    record = replace(of_user(2), created=NOW, created_monotonic=made)
    assert bool(await liveness.gone([record])) is is_gone


async def test_a_defect_costs_one_lease(
    liveness: Liveness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(user: int, _: str, **__: Path) -> bool:
        if user == 3:
            raise ZeroDivisionError
        return True

    monkeypatch.setattr(users_state, "is_there", fails)
    gone = await liveness.gone([of_user(user) for user in (2, 3, 4)])
    assert [record.user for record in gone] == [3]


Make = Callable[[Path], object]


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, Path.touch, lambda _: None])
async def test_a_lock_that_is_none_ends_the_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Make
) -> None:
    uid = os.geteuid()
    lock = tmp_path / f"{uid}/credspec/leases/{uid:032x}.lock"
    lock.parent.mkdir(parents=True)
    make(lock)
    monkeypatch.setattr(LeaseDirectory, "is_there", lambda _: True)
    record = replace(of_user(uid), runtime_state=str(lock))
    async with asyncio.timeout(30):
        homes = Homes(tmp_path, tmp_path, tmp_path)
        gone = await Liveness(homes, BlockingCalls()).gone([record])
    assert gone == [record]
