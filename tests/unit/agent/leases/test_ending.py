"""The ends of leases: nothing of them stays, and one does not end another; a simulated domain."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from credspec.agent.audit import Caller
from credspec.agent.leases import ending
from credspec.agent.leases.journal import Journal
from credspec.config.policy import Policy
from credspec.errors import CredspecError
from credspec.providers.provider import HostAccount
from credspec.service.events import Event
from support.agent.scripted_leases import ScriptedLeases, directory_in_memory


@pytest.fixture
def directory() -> Iterator[Path]:
    with directory_in_memory() as found:
        yield found


def lease_id(number: int) -> str:
    return f"{number:032x}"


def holders(bench: ScriptedLeases) -> set[str]:
    return {holder for identity in bench.identities.held() for holder in identity.holders}


async def test_nothing_of_a_lease_stays_simulated(directory: Path) -> None:
    bench = ScriptedLeases(directory)
    account = HostAccount("example.test", "reader", "hunter2")
    for number in (1, 2):
        await bench.leases.make(bench.request(number, host_account=account))
    table = bench.leases._table
    bench.leases._retries.begin(lease_id(1))
    assert bench.leases._ends.drop(lease_id(1)) is None
    assert table.records.keys() == table.sources.keys() == {lease_id(2)}
    assert table.secrets._held.keys() == {lease_id(2)}
    assert len(bench.leases._retries) == 0
    assert holders(bench) == {lease_id(2)}
    assert [path.stem for path in (directory / "journal").iterdir()] == [lease_id(2)]
    assert list((directory / "tree/lease1/account").iterdir()) == []
    assert len(list((directory / "tree/lease2/account").iterdir())) == 2
    await bench.close()


async def test_a_lease_that_root_cut_off_has_nothing_and_is_known_simulated(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether that can be written down or not: then it holds until the agent starts again."""
    bench = ScriptedLeases(directory)
    for number in (1, 2):
        await bench.leases.make(bench.request(number))
        bench.leases._retries.begin(lease_id(number))

    def write(*_: object) -> None:
        raise CredspecError.of("journal-unwritable", "simulated")

    kept = await bench.leases.revoke(lease_id(1), Caller(0, 1))
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "write", write)
        with pytest.raises(CredspecError, match="journal-unwritable"):
            await bench.leases.revoke(lease_id(2), Caller(0, 1))
    assert len(bench.leases._retries) == 0
    assert holders(bench) == set()
    for number in (1, 2):
        assert list((directory / f"tree/lease{number}/account").iterdir()) == []
        record = bench.leases.get(lease_id(number))
        assert (record.revoked, record.ready, record.ticket_end) == (True, False, None)
    assert next(iter(Journal(directory / "journal").records())) == kept
    revoked = [line for line in bench.audited() if line["decision"] == "revoked"]
    assert [(line["lease"], line["uid"]) for line in revoked] == [(lease_id(n), 0) for n in (1, 2)]
    # A renewal that was on its way gives it nothing.
    assert await bench.leases._renewal.try_again(lease_id(1))
    assert list((directory / "tree/lease1/account").iterdir()) == []
    await bench.close()


async def test_a_record_of_a_lease_that_is_not_held_goes_too_simulated(directory: Path) -> None:
    bench = ScriptedLeases(directory)
    record = await bench.leases.make(bench.request(1))
    del bench.leases._table.records[record.lease_id]
    assert bench.leases._ends.drop(record.lease_id) is None
    assert list((directory / "journal").iterdir()) == []
    await bench.close()


async def test_a_journal_that_cannot_be_written_keeps_no_lease_simulated(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = ScriptedLeases(directory)
    await bench.leases.make(bench.request(1))
    emitted: list[tuple[Event, dict[str, Any]]] = []
    monkeypatch.setattr(ending, "emit", lambda event, **more: emitted.append((event, more)))

    def remove(*_: object) -> None:
        raise CredspecError.of("journal-unwritable", "simulated")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "remove", remove)
        await bench.leases.release(lease_id(1))
    ((event, fields),) = emitted
    assert (event, fields["lease"]) == (Event.JOURNAL_UNWRITABLE, lease_id(1))
    assert "journal-unwritable" in fields["error"]
    assert bench.leases.count == 0
    assert holders(bench) == set()
    assert list((directory / "tree/lease1/account").iterdir()) == []
    await bench.close()


async def test_a_new_policy_ends_what_it_does_not_allow_and_nothing_else_simulated(
    directory: Path,
) -> None:
    """More of them than are looked at in one turn of the loop."""
    bench = ScriptedLeases(directory)
    for number in range(45):
        await bench.leases.make(bench.request(number, f"App{number % 3}"))
    assert await bench.leases.enforce_policy() == 0
    bench.leases.policy.replace(Policy(accounts=("App1",), spec_sources=("raw",)))
    assert await bench.leases.enforce_policy() == 30
    left = {lease_id(number) for number in range(45) if number % 3 == 1}
    assert {record.lease_id for record in bench.leases.all()} == holders(bench) == left
    assert {path.stem for path in (directory / "journal").iterdir()} == left
    revoked = [line for line in bench.audited() if line["decision"] == "revoked"]
    assert len(revoked) == 30
    assert not {line["lease"] for line in revoked} & left
    assert {code for line in revoked for code in line["errors"]} == {"policy-account"}
    assert await bench.leases.enforce_policy() == 0
    assert len(bench.leases._locks) == 0
    await bench.close()


async def test_a_lease_that_ended_while_the_policy_was_enforced_is_not_counted_simulated(
    directory: Path,
) -> None:
    bench = ScriptedLeases(directory)
    for number in (1, 2):
        await bench.leases.make(bench.request(number))
    bench.leases.policy.replace(Policy(accounts=(), spec_sources=("raw",)))
    real = bench.leases._ends._end_refused

    async def end_refused(each: str) -> bool:
        if each == lease_id(1):
            bench.leases._ends.drop(each)
        return await real(each)

    bench.leases._ends._end_refused = end_refused  # type: ignore[method-assign]
    assert await bench.leases.enforce_policy() == 1
    assert bench.leases.count == 0
    assert [line["lease"] for line in bench.audited() if line["decision"] == "revoked"] == [
        lease_id(2)
    ]
    await bench.close()
