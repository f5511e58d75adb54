"""Leases over a simulated domain: locks, limits, and records that are damaged or hostile."""

from __future__ import annotations

import asyncio
import json
import os
import random
import string
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from credspec.agent.audit import NOBODY, AuditLog, Caller
from credspec.agent.leases import recovery
from credspec.agent.leases.directory import LeaseDirectory
from credspec.agent.leases.journal import Journal
from credspec.agent.leases.limits import LeaseLimits
from credspec.agent.leases.record import LeaseRecord
from credspec.config.policy import Policy
from credspec.errors import CredspecError, TooManyRequestsError
from credspec.providers.provider import source_of_record
from credspec.service.events import Event
from support.agent.scripted_leases import ScriptedLeases, directory_in_memory

FEW = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def directory() -> Iterator[Path]:
    with directory_in_memory() as found:
        yield found


@FEW
@given(st.integers(0, 2**32))
def test_no_identity_stays_held_by_a_lease_that_is_gone_simulated(seed: int) -> None:
    """Callers of few ids, cancelled at any moment: what is held is what the leases name."""
    chance = random.Random(seed)

    async def rounds() -> None:
        with directory_in_memory() as place:
            bench = ScriptedLeases(place)
            bench.session.seconds = chance.choice([0, 0.001])
            requests = [bench.request(n, f"App{app}") for n in (1, 2) for app in range(4)]

            async def call() -> None:
                request = chance.choice(requests)
                if chance.random() < 0.5:
                    await bench.leases.make(request)
                else:
                    await bench.leases.release(request.lease_id)

            tasks: list[asyncio.Task[None]] = []
            while len(tasks) < 25:
                # Some come just when one has let go of an id and the next has not run yet.
                tasks += [asyncio.create_task(call()) for _ in range(chance.randrange(3))]
                await asyncio.sleep(chance.choice([0, 0, 0.0005]))
                if tasks and chance.random() < 0.3:
                    chance.choice(tasks).cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            there = {record.lease_id for record in bench.leases.all()}
            wanted = {
                (record.accounts[0].lower(), record.lease_id) for record in bench.leases.all()
            }
            held = {
                (identity.name.account, holder)
                for identity in bench.identities.held()
                for holder in identity.holders
            }
            assert held == wanted
            journaled = {r.lease_id for r in Journal(place / "journal").records()}  # type: ignore[union-attr]
            assert journaled == there
            assert len(bench.leases._locks) == 0
            await bench.close()
            assert open_grants(bench) == there

    asyncio.run(rounds())


def open_grants(bench: ScriptedLeases) -> set[str]:
    """The leases that were granted and have not ended, by the audit log alone."""
    there: set[str] = set()
    for line in bench.audited():
        match line["decision"]:
            case "granted":
                assert line["lease"] not in there
                there.add(line["lease"])
            case "released" | "revoked":
                there.discard(line["lease"])
    return there


@pytest.mark.parametrize("moment", ["before the line", "while it is written", "after it"])
def test_a_grant_that_its_caller_does_not_wait_for_has_an_end_in_the_audit_log_simulated(
    directory: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call is cancelled at the moment at which the lease is granted."""

    async def run() -> None:
        bench = ScriptedLeases(directory)
        task = asyncio.create_task(bench.leases.make(bench.request(1)))
        loop = asyncio.get_running_loop()
        write = AuditLog.write

        def slow(log: AuditLog, event: Event, caller: Caller, **fields: Any) -> None:
            if moment != "after it":
                loop.call_soon_threadsafe(task.cancel)
                time.sleep(0.05)
            write(log, event, caller, **fields)
            if moment == "after it":
                loop.call_soon_threadsafe(task.cancel)

        if moment == "before the line":
            give = bench.leases._delivery.give

            async def given(*values: Any, **options: Any) -> LeaseRecord:
                found = await give(*values, **options)
                task.cancel()
                return found

            monkeypatch.setattr(bench.leases._delivery, "give", given)
        else:
            monkeypatch.setattr(AuditLog, "write", slow)
        with pytest.raises(asyncio.CancelledError):
            await task
        monkeypatch.undo()
        assert bench.leases.all() == []
        assert [line["decision"] for line in bench.audited()] == ["granted", "released"]
        assert {line["lease"] for line in bench.audited()} == {f"{1:032x}"}
        await bench.close()

    asyncio.run(run())


def test_a_lease_that_is_replaced_has_an_end_in_the_audit_log_simulated(directory: Path) -> None:
    async def run() -> None:
        bench = ScriptedLeases(directory)
        await bench.leases.make(bench.request(1))
        await bench.leases.make(bench.request(1, "WebApp02"))
        with pytest.raises(CredspecError):
            await bench.leases.make(bench.request(1, spec="raw://{}"))
        decisions = [line["decision"] for line in bench.audited()]
        assert decisions == ["granted", "released", "granted", "denied"]
        assert open_grants(bench) == {f"{1:032x}"}
        assert [record.accounts for record in bench.leases.all()] == [("WebApp02",)]
        await bench.close()

    asyncio.run(run())


def test_a_lease_whose_container_went_while_nobody_looked_has_an_end_in_the_audit_log_simulated(
    directory: Path,
) -> None:
    async def run() -> None:
        bench = ScriptedLeases(directory)
        for number in (1, 2):
            await bench.leases.make(bench.request(number))
        await bench.close()
        (directory / "tree/lease1/account").rename(directory / "tree/lease1/gone")
        again = ScriptedLeases(directory)
        await again.leases.adopt()
        await again.close()
        assert open_grants(again) == {f"{2:032x}"} == {r.lease_id for r in again.leases.all()}

    asyncio.run(run())


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.sampled_from(["/" + "a" * 300, "/", "\0", "2026-01-01T00:00:00", "9999-12-31T00:00:00Z"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=6,
)
SOUND = {
    "lease_id": "1" * 32,
    "container": "c",
    "runtime_state": "/run/runc/c",
    "uid": 0,
    "gid": 0,
    "domain": "example.test",
    "default_account": "WebApp01",
    "accounts": ["WebApp01", "WebApp02@other.test"],
    "created": "2026-01-01T00:00:00+00:00",
    "ready": True,
    "ticket_start": "2026-01-01T00:00:00+00:00",
    "ticket_end": "2026-01-01T10:00:00+00:00",
    "user": None,
    "mode": 0o600,
    "keytab": False,
    "keytab_due": None,
    "host_source": None,
    "place": None,
}
RECORDS = st.one_of(
    JSON,
    st.dictionaries(st.sampled_from(sorted(SOUND)), JSON, max_size=4).map(lambda d: SOUND | d),
    st.sampled_from(sorted(SOUND)).map(lambda key: {k: v for k, v in SOUND.items() if k != key}),
)


@FEW
@given(st.lists(RECORDS, max_size=5), st.binary(max_size=40))
def test_no_record_of_the_journal_keeps_the_agent_from_starting(
    records: list[Any], junk: bytes
) -> None:
    async def starts() -> None:
        with directory_in_memory() as place:
            bench = ScriptedLeases(place)
            alive = bench.request(0xA)
            await bench.leases.make(alive)
            await bench.close()
            for number, each in enumerate(records):
                lease_id = f"{number:032x}"
                is_its = isinstance(each, dict) and each.get("lease_id") == "1" * 32
                record = each | {"lease_id": lease_id} if is_its else each
                (place / "journal" / f"{lease_id}.json").write_text(json.dumps(record))
            (place / "journal" / f"{'e' * 32}.json").write_bytes(junk)
            (place / "journal" / f"{'d' * 32}.json").write_text("[" * 20_000)
            (place / "journal" / f"{'c' * 32}.json").write_text(
                json.dumps(SOUND | {"container": "x" * 250_000})
            )
            again = ScriptedLeases(place)
            await again.leases.adopt()
            assert alive.lease_id in {record.lease_id for record in again.leases.all()}
            again.leases._sweep._liveness._monotonic = lambda: time.monotonic() + 3600
            await again.leases.sweep()
            await again.leases.sweep()
            assert alive.lease_id in {record.lease_id for record in again.leases.all()}
            names = {path.stem for path in (place / "journal").iterdir()}
            assert names == {record.lease_id for record in again.leases.all()}
            await again.close()

    asyncio.run(starts())


TEXTS = st.text(max_size=30) | st.sampled_from(
    ["/" + "a" * 300, "/" + "a/" * 2040, "/\udcff", "/a\0b"]
)


@FEW
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "container": TEXTS,
                "runtime_state": TEXTS,
                "user": st.none() | st.integers(1, 2**32 - 2),
                "created": st.integers(0, 7 * 10**9).map(lambda n: datetime.fromtimestamp(n, UTC)),
                "ready": st.booleans(),
            }
        ),
        max_size=5,
    )
)
def test_no_lease_keeps_the_others_from_being_looked_after(fields: list[dict[str, Any]]) -> None:
    """As an agent has them that let more be asked for, or that was asked by another way."""

    async def sweeps() -> None:
        with directory_in_memory() as place:
            bench = ScriptedLeases(place)
            made = await bench.leases.make(bench.request(0xA))
            for number, each in enumerate(fields):
                record = replace(made, lease_id=f"{number:032x}", place=None, **each)
                bench.leases._table.records[record.lease_id] = record
            bench.leases._sweep._liveness._monotonic = lambda: time.monotonic() + 3600
            await bench.leases.sweep()
            assert [record.lease_id for record in bench.leases.all()] == [made.lease_id]
            await bench.close()

    asyncio.run(sweeps())


async def test_a_defect_costs_one_lease(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = ScriptedLeases(directory)
    for number in (1, 2, 3):
        await bench.leases.make(bench.request(number))
    await bench.close()
    again = ScriptedLeases(directory)
    real = source_of_record

    def fails(record: Any, *, home: str, lease_id: str) -> Any:
        if lease_id.endswith("2"):
            raise ZeroDivisionError
        return real(record, home=home, lease_id=lease_id)

    monkeypatch.setattr(recovery, "source_of_record", fails)
    await again.leases.adopt()
    assert [record.container for record in again.leases.all()] == ["container1", "container3"]
    (directory / "tree/lease1/account").rename(directory / "gone")
    (directory / "tree/lease3/account").rename(directory / "gone3")
    real_release = again.leases.release

    async def refuses(lease_id: str) -> None:
        if lease_id.endswith("1"):
            raise ZeroDivisionError
        await real_release(lease_id)

    monkeypatch.setattr(again.leases._sweep, "_release", refuses)
    assert await again.leases.sweep() == 1
    assert [record.container for record in again.leases.all()] == ["container1"]
    await again.close()


async def test_renewals_go_on_whatever_one_lease_does(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = ScriptedLeases(directory)
    for number in (1, 2, 3):
        await bench.leases.make(bench.request(number))
    real, written = LeaseDirectory.write, []

    def fails(self: LeaseDirectory, files: dict[str, bytes], **more: int) -> None:
        written.append(str(self.path))
        if "lease1" in str(self.path):
            raise ZeroDivisionError
        real(self, files, **more)

    monkeypatch.setattr(LeaseDirectory, "write", fails)
    (identity,) = bench.identities.held()
    await bench.identities.refresh(identity.name)
    assert len(written) == 3
    await bench.close()


USER = 4711
UNKNOWN: dict[str, Any] = {"place": None, "document_is_vouched_for": False}


def of_user(bench: ScriptedLeases, number: int, *accounts: str, **more: Any) -> Any:
    """Return a request of an unprivileged user, in a tree as gRPC's callers have it."""
    return bench.request(number, *accounts, uid=USER, **more)


def policy_with(leases_per_user: int) -> Policy:
    uids = frozenset({USER, USER + 1})
    return Policy(grpc_uids=uids, spec_sources=("raw",), leases_per_user=leases_per_user)


async def test_a_user_has_so_many_leases_and_root_as_many_as_it_likes(directory: Path) -> None:
    bench = ScriptedLeases(
        directory,
        policy_with(3),
    )
    for number in range(3):
        await bench.leases.make(of_user(bench, number))
    with pytest.raises(TooManyRequestsError) as caught:
        await bench.leases.make(of_user(bench, 3))
    assert caught.value.code in {"leases-too-many", "leases-too-often"}
    assert bench.leases.count == 3
    assert not (directory / "journal" / f"{3:032x}.json").exists()
    for number in range(10, 20):
        await bench.leases.make(bench.request(number))
    await bench.leases.make(bench.request(30, uid=USER + 1))
    await bench.close()


async def test_many_requests_at_once_do_not_get_past_the_number(directory: Path) -> None:
    bench = ScriptedLeases(
        directory,
        policy_with(5),
    )
    bench.leases._claims._limits = LeaseLimits(lambda: 5)
    bench.leases._claims._limits._changes._rate = 1e6
    requests = [of_user(bench, number) for number in range(40)]
    found = await asyncio.gather(*map(bench.leases.make, requests), return_exceptions=True)
    assert sum(isinstance(each, LeaseRecord) for each in found) == bench.leases.count == 5
    await bench.close()


async def test_denials_of_a_user_are_written_down_in_bounded_number(directory: Path) -> None:
    bench = ScriptedLeases(directory, Policy(spec_sources=(), leases_per_user=200))
    for number in range(100):
        with pytest.raises(CredspecError):
            await bench.leases.make(of_user(bench, number, spec="raw://{}", **UNKNOWN))
    lines = bench.audited()
    assert len(lines) == 20
    assert bench.leases.denied == 100
    bench.leases._audit._denials._clock = lambda: time.monotonic() + 61
    bench.leases._audit._denials.flush()
    await asyncio.gather(*bench.leases._background.tasks)
    (summary,) = bench.audited()[20:]
    assert (summary["uid"], summary["suppressed"], summary["decision"]) == (USER, 80, "denied")
    # Root's are all written down.
    for number in range(30):
        with pytest.raises(CredspecError):
            await bench.leases.make(bench.request(number, spec="raw://{}", **UNKNOWN))
    assert len(bench.audited()) == 21 + 30
    await bench.close()


@pytest.mark.parametrize(
    "spec",
    [
        'raw:/{"PluginInput": "hunter2"}',
        ' raw://{"PluginInput": "hunter2"}',
        '{"PluginInput": "hunter2"}',
        'file://{"PluginInput": "hunter2"}',
        'file://a/{"PluginInput": "hunter2"}',
        'registry://{"PluginInput": "hunter2"}',
        'raw://{"PluginInput": "hunter2"',
    ],
)
async def test_a_mistyped_reference_is_written_nowhere(
    directory: Path, capfd: pytest.CaptureFixture[str], spec: str
) -> None:
    bench = ScriptedLeases(directory)
    for request in (
        bench.request(1, spec=spec, **UNKNOWN),
        of_user(bench, 2, spec=spec),
    ):
        with pytest.raises(CredspecError) as caught:
            await bench.leases.make(request)
        assert "hunter2" not in str(caught.value)
    assert len(bench.audited()) == 2
    assert "hunter2" not in bench.audit_log.read_text() + "".join(capfd.readouterr())
    await bench.close()


async def test_a_record_is_no_longer_than_the_next_run_reads(directory: Path) -> None:
    bench = ScriptedLeases(directory)
    with pytest.raises(CredspecError, match="journal-record-too-long"):
        await bench.leases.make(bench.request(1, container="x" * 40_000))
    assert bench.leases.count == 0
    assert list((directory / "journal").iterdir()) == []
    await bench.close()


async def test_a_spec_of_too_many_accounts_asks_nobody(directory: Path) -> None:
    bench = ScriptedLeases(directory)
    names = ["".join(random.Random(n).choices(string.ascii_letters, k=9)) for n in range(201)]
    with pytest.raises(CredspecError, match="accounts-too-many"):
        await bench.leases.make(bench.request(1, *names))
    assert bench.identities.domains() == []
    await bench.close()


async def test_an_audit_log_that_does_not_answer_refuses_and_holds_nobody_up(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("credspec.agent.audit._SECONDS", 0.1)
    bench = ScriptedLeases(directory)
    os.mkfifo(bench.audit_log)
    making = asyncio.create_task(bench.leases.make(bench.request(1)))
    turns = 0
    while not making.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert turns > 5
    with pytest.raises(CredspecError, match="audit-unwritable"):
        await making
    assert bench.leases.count == 0
    os.close(os.open(bench.audit_log, os.O_RDONLY | os.O_NONBLOCK))
    await bench.close()


async def test_anothers_lease_is_neither_released_nor_replaced(directory: Path) -> None:
    bench = ScriptedLeases(directory)
    await bench.leases.make(bench.request(1))
    with pytest.raises(CredspecError, match="lease-not-yours"):
        await bench.leases.release(f"{1:032x}", Caller(USER, 1))
    with pytest.raises(CredspecError, match="lease-not-yours"):
        await bench.leases.make(of_user(bench, 1))
    assert bench.leases.get(f"{1:032x}").user is None
    await bench.close()


AGENT = USER + 2


@pytest.mark.parametrize("uid", [NOBODY.uid, 0, AGENT, USER, USER + 1])
async def test_a_user_s_lease_is_released_by_itself_root_and_the_agent_only(
    directory: Path, monkeypatch: pytest.MonkeyPatch, uid: int
) -> None:
    bench = ScriptedLeases(directory, policy_with(3))
    await bench.leases.make(of_user(bench, 1))
    monkeypatch.setattr(os, "geteuid", lambda: AGENT)
    if uid == USER + 1:
        with pytest.raises(CredspecError, match="lease-not-yours"):
            await bench.leases.release(f"{1:032x}", Caller(uid, 1))
    else:
        await bench.leases.release(f"{1:032x}", Caller(uid, 1))
    assert bench.leases.count == (uid == USER + 1)
    monkeypatch.undo()
    await bench.close()


async def test_a_user_that_makes_and_releases_leases_without_end_has_to_wait(
    directory: Path,
) -> None:
    """Never more than one at a time: it is their rate that is too high."""
    bench = ScriptedLeases(directory, policy_with(3))
    bench.leases._claims._limits = LeaseLimits(lambda: 3, clock=lambda: 0.0)
    for number in range(3):
        await bench.leases.make(of_user(bench, number))
        await bench.leases.release(f"{number:032x}", Caller(USER, 1))
    with pytest.raises(TooManyRequestsError, match="leases-too-often"):
        await bench.leases.make(of_user(bench, 3))
    for number in range(5):
        await bench.leases.make(bench.request(number))
    await bench.leases.make(of_user(bench, 5, caller=Caller(USER + 1, 1)))
    assert bench.leases.count == 6
    await bench.close()
