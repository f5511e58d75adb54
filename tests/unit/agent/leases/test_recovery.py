"""After a restart: journals and files are real, the domain is simulated and need not be there."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from credspec.agent.identities.identities import Identities
from credspec.agent.leases import recovery
from credspec.agent.leases.ending import LeaseEnds
from credspec.agent.leases.homes import TreeHome
from credspec.agent.leases.liveness import Liveness
from credspec.agent.leases.record import LeaseRecord
from credspec.config.policy import Policy
from credspec.errors import CredspecError, UnreachableError
from credspec.providers.provider import HostAccount, LostSource, PluginSource
from credspec.providers.selection import Providers
from credspec.providers.settings import ProviderSettings
from support.agent.scripted_leases import ScriptedLeases, SimulatedSession, directory_in_memory

FIRST, SECOND = f"{1:032x}", f"{2:032x}"


@pytest.fixture
def directory() -> Iterator[Path]:
    with directory_in_memory() as found:
        yield found


class Unreachable(SimulatedSession):
    """A domain that does not answer."""

    def acquire(self, account: str) -> Any:
        self.acquired += 1
        raise UnreachableError.of("kdc-unreachable", "simulated", where=account)


def journaled(directory: Path) -> dict[str, dict[str, Any]]:
    return {
        path.stem: json.loads(path.read_text()) for path in (directory / "journal").glob("*.json")
    }


def rewritten(directory: Path, lease_id: str, **changes: object) -> None:
    path = directory / "journal" / f"{lease_id}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def contents(directory: Path) -> list[bytes]:
    return [path.read_bytes() for path in directory.rglob("*") if path.is_file()]


async def two_leases(directory: Path, **more: Any) -> dict[str, LeaseRecord]:
    """Let an agent make two leases, and end without a word to them."""
    bench = ScriptedLeases(directory)
    for number in (1, 2):
        await bench.leases.make(bench.request(number, **more))
    found = {record.lease_id: record for record in bench.leases.all()}
    await bench.close()
    return found


async def restarted(
    directory: Path, policy: Policy | None = None, session: SimulatedSession | None = None
) -> ScriptedLeases:
    bench = ScriptedLeases(directory, policy)
    if session is not None:
        bench.session = session
    await bench.leases.adopt()
    return bench


def decisions(bench: ScriptedLeases, lease_id: str) -> list[str]:
    return [line["decision"] for line in bench.audited() if line["lease"] == lease_id]


async def test_what_lives_is_taken_over_and_nobody_is_asked(directory: Path) -> None:
    made = await two_leases(directory)
    before = (directory / "tree/lease1/account/krb5cc").read_bytes()
    bench = await restarted(directory, session=Unreachable())
    assert {record.lease_id: record for record in bench.leases.all()} == made
    assert bench.session.acquired == 0
    assert (directory / "tree/lease1/account/krb5cc").read_bytes() == before
    (identity,) = bench.identities.held()
    assert identity.holders == {FIRST, SECOND}
    assert identity.end == made[FIRST].ticket_end
    await bench.close()
    assert decisions(bench, FIRST) == ["granted"]


async def test_a_container_that_went_meanwhile_costs_its_own_lease(directory: Path) -> None:
    await two_leases(directory)
    (directory / "tree/lease1/account").rename(directory / "gone")
    bench = await restarted(directory)
    assert [record.lease_id for record in bench.leases.all()] == [SECOND]
    assert set(journaled(directory)) == {SECOND}
    await bench.close()
    assert decisions(bench, FIRST) == ["granted", "released"]
    assert decisions(bench, SECOND) == ["granted"]


async def test_others_are_served_before_all_leases_were_looked_at(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "_FEW", 0)
    await two_leases(directory)
    (directory / "tree/lease1/account").rename(directory / "gone")
    (directory / "tree/lease2/account/krb5cc").unlink()
    bench = ScriptedLeases(directory)
    await bench.leases.take_over()
    assert [record.lease_id for record in bench.leases.all()] == [FIRST, SECOND]
    made = await bench.leases.make(bench.request(3))
    assert await bench.leases.sweep() == 1
    (identity,) = bench.identities.held()
    assert identity.holders == {SECOND, made.lease_id}
    assert (directory / "tree/lease2/account/krb5cc").is_file(), "of the ticket that was made"
    assert await bench.leases.sweep() == 0
    await bench.close()
    assert decisions(bench, FIRST) == ["granted", "released"]


async def test_one_that_cannot_be_dropped_costs_no_other_lease(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "_FEW", 0)
    await two_leases(directory)
    for number in (1, 2):
        (directory / f"tree/lease{number}/account").rename(directory / f"gone{number}")
    bench = ScriptedLeases(directory)
    await bench.leases.take_over()
    real = LeaseEnds.drop

    def drop(ends: LeaseEnds, lease_id: str) -> None:
        if lease_id == FIRST:
            raise OSError(errno.EIO, "simulated")
        real(ends, lease_id)

    monkeypatch.setattr(LeaseEnds, "drop", drop)
    assert await bench.leases.sweep() == 1
    assert [record.lease_id for record in bench.leases.all()] == [FIRST]
    monkeypatch.undo()
    assert await bench.leases.sweep() == 1
    await bench.close()
    assert decisions(bench, SECOND) == ["granted", "released"]


async def test_a_lease_asked_for_again_before_it_was_looked_at_stays(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "_FEW", 0)
    await two_leases(directory)
    place = directory / "tree/lease1/account"
    place.rename(directory / "gone")
    bench = ScriptedLeases(directory)
    await bench.leases.take_over()
    place.mkdir()
    await bench.leases.make(bench.request(1))
    assert await bench.leases.sweep() == 0
    assert bench.leases.count == 2
    assert (place / "krb5cc").is_file()
    await bench.close()


@pytest.mark.parametrize("meanwhile", ["made again", "released", "cut off"])
async def test_a_lease_that_changed_while_containers_were_looked_at_is_left_alone(
    directory: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """It counts as gone, or as one that lacks files, by what was there before."""
    monkeypatch.setattr(recovery, "_FEW", 0)
    await two_leases(directory)
    place = directory / "tree/lease1/account"
    if meanwhile == "made again":
        place.rename(directory / "gone")
    bench = ScriptedLeases(directory)
    await bench.leases.take_over()
    real = Liveness.gone
    hastened: list[object] = []
    emitted: list[str] = []

    async def gone(*arguments: Any, **options: Any) -> list[LeaseRecord]:
        found = await real(*arguments, **options)
        if meanwhile == "made again":
            place.mkdir()
            await bench.leases.make(bench.request(1, "WebApp02"))
        elif meanwhile == "released":
            await bench.leases.release(FIRST)
        else:
            await bench.leases.revoke(FIRST)
        return found

    monkeypatch.setattr(Liveness, "gone", gone)
    monkeypatch.setattr(bench.identities, "hasten", hastened.append)
    monkeypatch.setattr(recovery, "emit", lambda _event, **more: emitted.append(more["lease"]))
    assert await bench.leases.sweep() == 0
    assert [record.lease_id for record in bench.leases.all() if not record.revoked] == (
        [SECOND, FIRST] if meanwhile == "made again" else [SECOND]
    )
    assert (place / "krb5cc").is_file() is (meanwhile == "made again")
    assert (emitted, hastened) == ([SECOND], [])
    await bench.close()


async def test_adopted_leases_are_looked_at_however_many_there_are(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "_FEW", 1)
    await two_leases(directory)
    (directory / "tree/lease1/account").rename(directory / "gone")
    bench = await restarted(directory)
    assert [record.lease_id for record in bench.leases.all()] == [SECOND]
    await bench.close()
    # As many as are looked at before anybody is served.
    bench = ScriptedLeases(directory)
    await bench.leases.take_over()
    assert bench.leases._recovery.is_examined
    await bench.close()


async def test_files_that_cannot_be_looked_at_count_as_there(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else every start would ask the domain for all tickets while a disk does not answer."""
    await two_leases(directory)

    def holds(*_: object) -> bool:
        raise CredspecError.of("lease-directory-timeout", "simulated")

    hastened: list[object] = []
    monkeypatch.setattr(TreeHome, "holds", holds)
    monkeypatch.setattr(Identities, "hasten", lambda _, name: hastened.append(name))
    bench = await restarted(directory)
    assert bench.leases.count == 2
    assert hastened == []
    await bench.close()


@pytest.mark.parametrize(
    "unfinished",
    [{"ready": False, "ticket_start": None, "ticket_end": None}, {"ready": False}],
)
async def test_a_lease_that_was_being_made_ends_without_an_entry(
    directory: Path, unfinished: dict[str, Any]
) -> None:
    await two_leases(directory)
    rewritten(directory, FIRST, **unfinished)
    bench = await restarted(directory)
    assert [record.lease_id for record in bench.leases.all()] == [SECOND]
    assert not (directory / "tree/lease1/account/krb5cc").exists()
    await bench.close()
    assert decisions(bench, FIRST) == ["granted"], "that of the run before; none of this one"


async def test_a_lease_without_its_files_gets_new_ones_at_once(directory: Path) -> None:
    await two_leases(directory)
    (directory / "tree/lease1/account/krb5cc").unlink()
    bench = await restarted(directory)
    (identity,) = bench.identities.held()
    refresh = bench.identities.refresh_at(identity.name)
    assert refresh is None or refresh <= datetime.now(UTC)
    await bench.identities.hold(identity.name, FIRST)
    assert bench.session.acquired == 1
    assert (directory / "tree/lease1/account/krb5cc").is_file()
    await bench.close()


async def test_what_the_run_before_had_begun_to_write_is_removed(directory: Path) -> None:
    await two_leases(directory)
    half = directory / "tree/lease1/account/.krb5cc.0123456789abcdef"
    half.write_bytes(b"half")
    (directory / "journal" / f"{FIRST}.new").write_text("{")
    bench = await restarted(directory)
    assert not half.exists()
    assert not list((directory / "journal").glob("*.new"))
    assert bench.leases.count == 2
    await bench.close()


async def test_what_the_policy_allows_no_more_is_revoked(directory: Path) -> None:
    await two_leases(directory)
    bench = await restarted(directory, Policy(accounts=("Other",)))
    assert bench.leases.all() == []
    assert journaled(directory) == {}
    assert not (directory / "tree/lease1/account/krb5cc").exists()
    await bench.close()
    assert decisions(bench, FIRST) == ["granted", "revoked"]
    assert bench.audited()[-1]["errors"] == ["policy-account"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"\xff\x00"),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | {"place": "/a/b"})),
        lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 3})),
        lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | {"uid": "0"})),
    ],
)
async def test_a_damaged_record_costs_its_own_lease(
    directory: Path, damage: Callable[[Path], object]
) -> None:
    await two_leases(directory)
    damage(directory / "journal" / f"{FIRST}.json")
    bench = await restarted(directory)
    assert [record.lease_id for record in bench.leases.all()] == [SECOND]
    assert set(journaled(directory)) == {SECOND}
    await bench.close()


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        (None, None),
        (
            {"guid": "{1}", "input": "file:reader"},
            PluginSource("{1}", "file:reader", "example.test"),
        ),
        ({"guid": "{1}"}, LostSource(FIRST)),
        ({}, LostSource(FIRST)),
    ],
)
async def test_what_a_lease_logs_on_with_is_known_again(
    directory: Path, recorded: object, expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    await two_leases(directory)
    rewritten(directory, FIRST, host_source=recorded)
    monkeypatch.setattr(Providers, "check", lambda *_: None)
    bench = await restarted(directory)
    assert bench.leases._table.sources[FIRST] == expected
    assert {identity.name.source for identity in bench.identities.held()} == {None, expected}
    await bench.close()


async def test_a_provider_that_is_enabled_no_more_ends_its_leases(directory: Path) -> None:
    await two_leases(directory)
    guid = "{859E1386-BDB4-49E8-85C7-3070B13920E1}"
    rewritten(directory, FIRST, host_source={"guid": guid, "input": "x"})
    bench = await restarted(directory)
    assert Providers(ProviderSettings()).settings.enabled == ()
    assert [record.lease_id for record in bench.leases.all()] == [SECOND]
    await bench.close()
    assert decisions(bench, FIRST) == ["granted", "revoked"]


async def test_a_password_that_came_with_the_request_is_written_nowhere(directory: Path) -> None:
    account = HostAccount("example.test", "reader", "hunter2")
    made = await two_leases(directory, host_account=account)
    assert [record.host_source for record in made.values()] == [{}, {}]
    texts = contents(directory)
    assert texts
    assert not any(b"hunter2" in text for text in texts)
    bench = await restarted(directory)
    assert bench.leases._table.sources == {each: LostSource(each) for each in (FIRST, SECOND)}
    await bench.close()


async def test_records_of_earlier_versions_are_taken_over(directory: Path) -> None:
    """They lack what came later; a lease in a tree is one whose document a call brought."""
    made = await two_leases(directory)
    path = directory / "journal" / f"{FIRST}.json"
    record = json.loads(path.read_text())
    for name in ("spec_source", "created_monotonic", "replay_cache", "name_fallback"):
        del record[name]
    path.write_text(json.dumps(record))
    bench = await restarted(directory)
    found = bench.leases.get(FIRST)
    assert found == replace(made[FIRST], created_monotonic=None)
    assert found.spec_source == "grpc"
    await bench.close()
