"""New tickets for leases that have some; the domain is simulated, the files are real."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from credspec.agent.leases import renewal
from credspec.config.policy import Policy
from credspec.errors import CredspecError, NotPermittedError
from credspec.service.events import Event
from credspec.session.domain_session import Acquisition
from support.agent.scripted_leases import ScriptedLeases, SimulatedSession, directory_in_memory

USER = 4711


@pytest.fixture
def directory() -> Iterator[Path]:
    with directory_in_memory() as found:
        yield found


@pytest.fixture
def emitted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Event, dict[str, Any]]]:
    found: list[tuple[Event, dict[str, Any]]] = []
    monkeypatch.setattr(renewal, "emit", lambda event, **more: found.append((event, more)))
    return found


def lease_id(number: int) -> str:
    return f"{number:032x}"


def cache(directory: Path, number: int) -> bytes:
    return (directory / f"tree/lease{number}/account/krb5cc").read_bytes()


class Refusing(SimulatedSession):
    """Refuses accounts once they are in `refused`; counts how many it is asked for at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: set[str] = set()
        self.asked: list[str] = []
        self.at_a_time = self.most = 0
        self._lock = threading.Lock()

    def acquire(self, account: str) -> Acquisition:
        with self._lock:
            self.asked.append(account)
            self.at_a_time += 1
            self.most = max(self.most, self.at_a_time)
        try:
            if account in self.refused:
                raise NotPermittedError.of("account-disabled", "simulated", where=account)
            return super().acquire(account)
        finally:
            with self._lock:
                self.at_a_time -= 1


async def test_all_leases_get_the_new_ticket_and_no_other_simulated(directory: Path) -> None:
    bench = ScriptedLeases(directory)
    for number in range(25):
        await bench.leases.make(bench.request(number))
    await bench.leases.make(bench.request(99, "Other"))
    before = cache(directory, 99)
    # One that is being made gets its ticket where it is made.
    records = bench.leases._table.records
    records[lease_id(3)] = replace(records[lease_id(3)], ready=False)
    old = cache(directory, 3)
    (identity,) = [i for i in bench.identities.held() if i.name.account == "webapp01"]
    await bench.identities.refresh(identity.name)
    assert identity.ticket is not None
    assert {cache(directory, number) for number in range(25) if number != 3} == {
        identity.ticket.ccache
    }
    assert cache(directory, 3) == old != identity.ticket.ccache
    assert cache(directory, 99) == before
    await bench.close()


async def test_a_lease_that_the_policy_forbids_ends_instead_simulated(directory: Path) -> None:
    bench = ScriptedLeases(directory, Policy(spec_sources=("raw",), keytabs=()))
    await bench.leases.make(bench.request(1))
    await bench.leases.make(bench.request(2, "WebApp01", "WebApp02"))
    (identity,) = [i for i in bench.identities.held() if i.name.account == "webapp01"]
    bench.leases.policy.replace(Policy(accounts=("WebApp01",), spec_sources=("raw",)))
    await bench.identities.refresh(identity.name)
    assert [record.lease_id for record in bench.leases.all()] == [lease_id(1)]
    assert identity.ticket is not None
    assert cache(directory, 1) == identity.ticket.ccache
    assert list((directory / "tree/lease2/account").iterdir()) == []
    await bench.close()


async def test_a_users_lease_is_renewed_without_holding_up_others_simulated(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Policy(grpc_uids=frozenset({USER}), spec_sources=("raw",))
    bench = ScriptedLeases(directory, policy)
    await bench.leases.make(bench.request(1, uid=USER))
    await bench.leases.make(bench.request(2))
    release = asyncio.Event()
    real = bench.leases._renewal._delivery.give

    async def give(record: Any, **more: Any) -> Any:
        if record.user is not None:
            await release.wait()
        return await real(record, **more)

    monkeypatch.setattr(bench.leases._renewal._delivery, "give", give)
    (identity,) = bench.identities.held()
    async with asyncio.timeout(60):
        await bench.identities.refresh(identity.name)
    assert identity.ticket is not None
    assert cache(directory, 2) == identity.ticket.ccache != cache(directory, 1)
    release.set()
    await asyncio.gather(*bench.leases._background.tasks)
    assert cache(directory, 1) == identity.ticket.ccache
    await bench.close()


async def test_a_ticket_that_is_not_fit_is_given_to_nobody_and_that_is_reported_simulated(
    directory: Path, emitted: list[tuple[Event, dict[str, Any]]]
) -> None:
    bench = ScriptedLeases(directory)
    await bench.leases.make(bench.request(1))
    before = cache(directory, 1)
    (identity,) = bench.identities.held()
    later = datetime.now(UTC) + timedelta(hours=9)
    bench.leases._renewal._now = lambda: later
    await bench.identities.refresh(identity.name)
    assert cache(directory, 1) == before
    ((event, fields),) = emitted
    assert event is Event.REFRESH_FAILED
    assert fields["identity"] == "webapp01@example.test"
    assert "ticket-unfit" in fields["error"]
    await bench.close()


@pytest.mark.parametrize("failure", [CredspecError.of("x-full", "simulated"), ZeroDivisionError()])
async def test_one_that_fails_is_reported_once_and_tried_again_simulated(
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    emitted: list[tuple[Event, dict[str, Any]]],
    failure: Exception,
) -> None:
    bench = ScriptedLeases(directory)
    await bench.leases.make(bench.request(1))
    real, left = bench.leases._renewal._delivery.give, [0, 0]

    async def give(record: Any, **more: Any) -> Any:
        if left:
            left.pop()
            raise failure
        return await real(record, **more)

    monkeypatch.setattr(bench.leases._renewal._delivery, "give", give)
    (identity,) = bench.identities.held()
    await bench.identities.refresh(identity.name)
    assert len(bench.leases._retries) == 1
    assert not await bench.leases._renewal.try_again(lease_id(1))
    assert len(bench.leases._retries) == 1
    assert await bench.leases._renewal.try_again(lease_id(1))
    assert len(bench.leases._retries) == 0
    assert identity.ticket is not None
    assert cache(directory, 1) == identity.ticket.ccache
    assert [(event, fields["lease"]) for event, fields in emitted] == [
        (Event.LEASE_NOT_RENEWED, lease_id(1)),
        (Event.LEASE_RENEWED_LATE, lease_id(1)),
    ]
    await bench.close()


async def test_what_is_not_there_or_not_allowed_any_more_is_not_tried_again_simulated(
    directory: Path,
) -> None:
    bench = ScriptedLeases(directory)
    await bench.leases.make(bench.request(1))
    assert await bench.leases._renewal.try_again(lease_id(2))
    bench.leases.policy.replace(Policy(accounts=(), spec_sources=("raw",)))
    assert await bench.leases._renewal.try_again(lease_id(1))
    assert bench.leases.count == 0
    assert list((directory / "tree/lease1/account").iterdir()) == []
    await bench.close()


async def test_a_refresh_asks_for_each_account_once_and_returns_what_failed_simulated(
    directory: Path,
) -> None:
    bench = ScriptedLeases(directory)
    session = bench.session = Refusing()
    names = [f"App{number}" for number in range(19)]
    await bench.leases.make(bench.request(1, *names))
    await bench.leases.make(bench.request(2, "App3", "App18"))
    await bench.leases.make(bench.request(3, "Other"))
    session.asked.clear()
    session.refused = {"app3", "app18"}
    failures = await bench.leases.refresh([lease_id(1), lease_id(2), lease_id(7)])
    assert sorted(session.asked) == sorted(name.lower() for name in names)
    assert session.most <= 8
    assert [failure.problems[0].where for failure in failures] == ["app3", "app18"]
    assert await bench.leases.refresh([lease_id(3)]) == []
    assert session.asked[-1] == "other"
    await bench.close()
