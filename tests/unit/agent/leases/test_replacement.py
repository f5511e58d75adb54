"""A lease is asked for again with another document: all of it is replaced, or nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from credspec.agent.leases.request import LeaseRequest
from credspec.config.policy import Policy
from credspec.errors import CredspecError, UnreachableError
from credspec.providers.provider import HostAccount
from support.agent.lease_bench import (
    FIRST,
    LEASE,
    MACHINE,
    SECOND,
    LeaseBench,
    audit_full,
    disk_failing,
    disk_full,
    journal_full,
)
from support.agent.scripted_leases import directory_in_memory, raw_spec

FILES_OF_BOTH = {"krb5.conf", "krb5cc", "krb5cc_webapp01", "krb5cc_webapp02"}
FILES_OF_ONE = {"krb5.conf", "krb5cc"}


@pytest.fixture
def directory() -> Iterator[Path]:
    with directory_in_memory() as found:
        yield found


async def made(directory: Path, **more: Any) -> LeaseBench:
    """Return leases of which the first has two accounts, and asks nothing on its own."""

    async def never(_: float) -> None:
        await asyncio.Event().wait()

    bench = LeaseBench(directory, Policy(spec_sources=("file", "raw"), keytabs=("*",)))
    bench.leases._retries._sleep = never
    for reader in bench.readers.values():
        reader.readable = ("webapp01", "webapp02", "webapp03")
    await bench.leases.make(bench.request(1, "WebApp01", "WebApp02", **more))
    return bench


async def ended(bench: LeaseBench) -> None:
    await bench.leases.release(LEASE)
    await bench.close()
    assert bench.files() == {}
    assert bench.held() == {}
    assert bench.leases._table.secrets._held == {}


@pytest.mark.parametrize("host_account", [None, FIRST, SECOND])
async def test_another_document_takes_the_place_of_the_one_before_simulated(
    directory: Path, host_account: HostAccount | None
) -> None:
    bench = await made(directory, host_account=FIRST)
    assert bench.files().keys() == FILES_OF_BOTH
    before = bench.files()
    record = await bench.leases.make(
        bench.request(1, "WebApp03", host_account=host_account, mode=0o640)
    )
    state = bench.state()
    assert state["record"] is record
    assert state["journal"] == [record]
    assert record.accounts == ("WebApp03",)
    assert state["files"].keys() == FILES_OF_ONE, "nothing of the former accounts is left"
    assert state["files"]["krb5cc"] != before["krb5cc"]
    reader = MACHINE if host_account is None else host_account.user
    assert bench.held() == {("webapp03", reader): {LEASE}}
    assert state["password"] == (None if host_account is None else host_account.password)
    assert len(state["secrets"].get(LEASE, ())) == (host_account is not None)
    decisions = [line["decision"] for line in bench.audited()]
    assert decisions == ["granted", "released", "granted"]
    await ended(bench)


async def test_what_both_documents_have_stays_held_simulated(directory: Path) -> None:
    bench = await made(directory)
    asked = bench.readers[MACHINE].acquired
    await bench.leases.make(bench.request(1, "WebApp02"))
    assert bench.readers[MACHINE].acquired == asked, "its ticket is good"
    assert bench.held() == {("webapp02", MACHINE): {LEASE}}
    assert bench.files().keys() == FILES_OF_ONE
    await ended(bench)


async def test_there_is_always_a_ticket_simulated(directory: Path) -> None:
    """Also while the domain is asked for the new one."""
    bench = await made(directory)
    seen = []
    bench.readers[MACHINE].during = lambda: seen.append({*bench.files()})
    await bench.leases.make(bench.request(1, "WebApp03"))
    assert seen == [FILES_OF_BOTH]
    await ended(bench)


def unreadable(bench: LeaseBench, _: pytest.MonkeyPatch) -> None:
    for reader in bench.readers.values():
        reader.readable = ("webapp01", "webapp02")


def unreachable(bench: LeaseBench, _: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise UnreachableError.of("no-controller-answers", "simulated")

    for reader in bench.readers.values():
        reader.during = fail


def another_policy(bench: LeaseBench, _: pytest.MonkeyPatch) -> None:
    """It is put into force while the domain is asked, and allows what the lease has."""
    policy = Policy(accounts=("WebApp01", "WebApp02"), spec_sources=("raw",))
    for reader in bench.readers.values():
        reader.during = lambda: bench.leases.policy.replace(policy)


def strict_policy(bench: LeaseBench, _: pytest.MonkeyPatch) -> None:
    bench.leases.policy.replace(
        Policy(accounts=("WebApp01", "WebApp02"), spec_sources=("raw",), keytabs=())
    )


def nothing(_: LeaseBench, __: pytest.MonkeyPatch) -> None:
    pass


def with_other(document: str, **join: str) -> str:
    found = json.loads(document.removeprefix("raw://"))
    found["DomainJoinConfig"] |= join
    return f"raw://{json.dumps(found)}"


@dataclass(frozen=True)
class Refusal:
    """What is asked for, what goes wrong, the code of it, and what the audit log has of it."""

    code: str
    cause: Callable[[LeaseBench, pytest.MonkeyPatch], None] = nothing
    accounts: tuple[str, ...] = ("WebApp03",)
    more: dict[str, Any] | None = None
    written: tuple[str, ...] = ("denied",)


# What was begun is in the audit log, and that it did not stay.
BEGUN = ("released", "granted", "released", "granted", "denied")
REFUSALS = [
    Refusal("password-not-readable", unreadable),
    Refusal("password-not-readable", unreadable, ("WebApp01", "WebApp03")),
    Refusal("no-controller-answers", unreachable),
    Refusal("policy-account", another_policy),
    Refusal("policy-account", strict_policy),
    Refusal("spec-", more={"spec": "raw://{}"}),
    Refusal("spec-", more={"spec": "raw://not JSON"}),
    Refusal("spec-", more={"spec": "file://missing.json"}),
    Refusal("spec-", more={"spec": "nonsense"}),
    Refusal("spec-", more={"spec": with_other(raw_spec("WebApp03"), Sid="S-1-5-21-9-9-9")}),
    Refusal("lease-directory-full", disk_full, written=BEGUN),
    Refusal("lease-directory-unwritable", disk_failing, written=BEGUN),
    Refusal("journal-unwritable", journal_full, written=BEGUN),
    Refusal("audit-unwritable", audit_full, written=("released", "released")),
]


@pytest.mark.parametrize("host_account", [None, FIRST, SECOND])
@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.code)
async def test_whatever_refuses_the_new_document_the_lease_stays_as_it_is_simulated(
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    refusal: Refusal,
    host_account: HostAccount | None,
) -> None:
    bench = await made(directory, host_account=FIRST)
    before, lines = bench.state(), len(bench.audited())
    with monkeypatch.context() as patch:
        refusal.cause(bench, patch)
        request = bench.request(
            1, *refusal.accounts, host_account=host_account, **refusal.more or {}
        )
        with pytest.raises(CredspecError, match=refusal.code):
            await bench.leases.make(request)
        await asyncio.gather(*bench.leases._background.tasks)
    assert bench.state() == before
    assert [line["decision"] for line in bench.audited()[lines:]] == [*refusal.written]
    for reader in bench.readers.values():
        reader.during = lambda: None
    # It is renewed as before.
    assert await bench.leases.refresh([LEASE]) == []
    assert bench.files().keys() == FILES_OF_BOTH
    assert bench.files() != before["files"]
    await ended(bench)


@pytest.mark.parametrize("document", [raw_spec("WebApp03"), "raw://{}", raw_spec("WebApp01")])
async def test_a_lease_that_policy_forbids_by_now_ends_with_the_refusal_simulated(
    directory: Path, document: str
) -> None:
    bench = await made(directory)
    bench.leases.policy.replace(Policy(accounts=("Other",), spec_sources=("raw",)))
    with pytest.raises(CredspecError):
        await bench.leases.make(bench.request(1, spec=document))
    assert bench.leases.all() == []
    assert bench.files() == {}
    assert [line["decision"] for line in bench.audited()] == ["granted", "revoked", "denied"]
    await ended(bench)


async def test_a_lease_that_is_revoked_while_its_successor_is_made_leaves_nothing_simulated(
    directory: Path,
) -> None:
    """A renewal meets the new policy first; both documents share an account."""
    bench = await made(directory)
    loop = asyncio.get_running_loop()
    policy = Policy(accounts=("WebApp01", "WebApp03"), spec_sources=("raw",))

    async def renew() -> None:
        bench.leases.policy.replace(policy)
        for identity in bench.identities.held():
            await bench.leases.renew(identity)

    bench.readers[MACHINE].during = lambda: asyncio.run_coroutine_threadsafe(renew(), loop).result()
    with pytest.raises(CredspecError, match="lease-not-found"):
        await bench.leases.make(bench.request(1, "WebApp01", "WebApp03"))
    assert bench.leases.all() == []
    assert bench.files() == {}
    assert bench.held() == {}
    await ended(bench)


@pytest.mark.parametrize("moment", ["at the directory", "at the audit log"])
async def test_a_caller_that_goes_leaves_all_as_it_was_simulated(
    directory: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    bench = await made(directory, host_account=FIRST)
    before = bench.state()
    task: asyncio.Task[object]
    loop = asyncio.get_running_loop()

    def go() -> None:
        loop.call_soon_threadsafe(task.cancel)

    if moment == "at the directory":
        bench.readers["second"].during = go
        bench.readers["second"].seconds = 0.1
    else:
        real = bench.leases._audit.granted

        async def granted(*arguments: Any) -> None:
            go()
            await asyncio.sleep(0.05)
            await real(*arguments)

        monkeypatch.setattr(bench.leases._audit, "granted", granted)
    task = asyncio.create_task(bench.leases.make(bench.request(1, "WebApp03", host_account=SECOND)))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.state() == before
    assert len(bench.leases._locks) == 0
    decisions = [line["decision"] for line in bench.audited()]
    begun = ["released", "granted"] * 2 if moment == "at the audit log" else []
    assert decisions == ["granted", *begun]
    assert bench.audited()[-1]["accounts"] == ["WebApp01", "WebApp02"]
    await ended(bench)


def keytabs(bench: LeaseBench) -> set[str]:
    holders = bench.identities._table.keytab_holders
    return {name.account for name, found in holders.items() if LEASE in found}


@pytest.mark.parametrize("former", [True, False])
@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("is_refused", [True, False])
async def test_the_keytab_is_that_of_the_document_that_counts_simulated(
    directory: Path, *, former: bool, wanted: bool, is_refused: bool
) -> None:
    bench = await made(directory, keytab=former)
    before = keytabs(bench)
    assert before == ({"webapp01", "webapp02"} if former else set())
    if is_refused:
        unreadable(bench, pytest.MonkeyPatch())
        with pytest.raises(CredspecError, match="password-not-readable"):
            await bench.leases.make(bench.request(1, "WebApp01", "WebApp03", keytab=wanted))
        assert keytabs(bench) == before
    else:
        await bench.leases.make(bench.request(1, "WebApp01", "WebApp03", keytab=wanted))
        assert keytabs(bench) == ({"webapp01", "webapp03"} if wanted else set())
    await ended(bench)
    assert keytabs(bench) == set()


async def test_a_lease_whose_files_are_elsewhere_is_made_again_there_simulated(
    directory: Path,
) -> None:
    bench = await made(directory, host_account=FIRST)
    elsewhere = bench.request(2, "WebApp03", host_account=SECOND)
    request: LeaseRequest = replace(elsewhere, lease_id=LEASE)
    with pytest.raises(CredspecError, match="spec-"):
        await bench.leases.make(replace(bench.request(2, spec="raw://{}"), lease_id=LEASE))
    assert bench.files().keys() == FILES_OF_BOTH
    await bench.leases.make(request)
    assert bench.files() == {}
    there = {*bench.files(2)}
    assert there == FILES_OF_ONE
    assert bench.held() == {("webapp03", "second"): {LEASE}}
    assert len(bench.leases._table.secrets._held[LEASE]) == 1
    await ended(bench)
