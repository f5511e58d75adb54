"""What leases are given, and until when it is good; the domain is simulated."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from credspec.agent.leases.journal import Journal
from credspec.config.policy import Policy
from credspec.errors import CredspecError, NotPermittedError
from credspec.kerberos.keytab import keytab_bytes
from credspec.kerberos.tickets import Ticket
from credspec.session.domain_session import Acquisition
from support.agent.scripted_leases import ScriptedLeases, SimulatedSession, directory_in_memory

ACCOUNTS = ("WebApp01", "WebApp02", "WebApp03")
WITH_KEYTABS = Policy(spec_sources=("raw",), keytabs=("*",))


class Lives(SimulatedSession):
    """A domain whose accounts have tickets of different lengths, in hours; others it refuses.

    A ticket began as many minutes ago, and its keytab is due in as many days.
    """

    def __init__(self, **hours: int) -> None:
        super().__init__()
        self.hours = hours

    def acquire(self, account: str) -> Acquisition:
        if account not in self.hours:
            raise NotPermittedError.of("password-not-readable", "simulated", where=account)
        hours, now = self.hours[account], datetime.now(UTC)
        name = f"{account}$@EXAMPLE.TEST"
        start, end = now - timedelta(minutes=hours), now + timedelta(hours=hours)
        ticket = Ticket(name, start, end, 18, secrets.token_bytes(16))
        return Acquisition(f"{account}$", ticket, now + timedelta(days=30))

    def acquire_with_keytab(self, account: str) -> Acquisition:
        due = datetime.now(UTC) + timedelta(days=self.hours[account])
        return replace(self.acquire(account), keytab=keytab_bytes(()), keytab_due=due)


@pytest.fixture
def directory() -> Iterator[Path]:
    with directory_in_memory() as found:
        yield found


def bench_of(directory: Path, *, policy: Policy | None = None, **hours: int) -> ScriptedLeases:
    bench = ScriptedLeases(directory, policy)
    bench.session = Lives(**hours)
    return bench


def files(directory: Path, number: int) -> dict[str, bytes]:
    place = directory / f"tree/lease{number}/account"
    return {path.name: path.read_bytes() for path in place.iterdir()}


@pytest.mark.parametrize("hours", list(itertools.permutations((10, 2, 5))))
async def test_the_ticket_that_ends_first_is_the_leases_end_simulated(
    directory: Path, hours: tuple[int, ...]
) -> None:
    """A restart plans by the record: with the longest ticket the others would end before."""
    names = [name.lower() for name in ACCOUNTS]
    lives = dict(zip(names, hours, strict=True))
    bench = bench_of(directory, policy=WITH_KEYTABS, **lives)
    record = await bench.leases.make(bench.request(1, *ACCOUNTS, keytab=True))
    held = {identity.name.account: identity for identity in bench.identities.held()}
    by_life = sorted(names, key=lambda name: lives[name])
    shortest, longest = held[by_life[0]], held[by_life[-1]]
    assert record.ready
    assert (record.ticket_start, record.ticket_end) == (longest.start, shortest.end)
    assert record.keytab_due == shortest.keytab_due is not None
    assert bench.leases.get(record.lease_id) == record
    assert list(Journal(directory / "journal").records()) == [record]
    # One without a keytab has none to renew, though its accounts have.
    other = await bench.leases.make(bench.request(2, *ACCOUNTS))
    assert other.keytab_due is None
    assert "krb5.keytab" in files(directory, 1)
    assert "krb5.keytab" not in files(directory, 2)
    await bench.close()


async def test_a_lease_without_one_of_its_tickets_is_none_simulated(directory: Path) -> None:
    """The clock was set between the answer of the domain and the writing."""
    bench = bench_of(directory, webapp01=10, webapp02=2)
    later = datetime.now(UTC) + timedelta(hours=3)
    bench.leases._delivery._now = lambda: later
    with pytest.raises(NotPermittedError, match="ticket-unfit") as caught:
        await bench.leases.make(bench.request(1, "WebApp01", "WebApp02"))
    (problem,) = caught.value.problems
    assert problem.found.startswith("webapp02@example.test: ended ")
    assert "webapp01" not in problem.found
    assert files(directory, 1) == {}
    assert bench.leases.count == 0
    assert list((directory / "journal").iterdir()) == []
    await bench.close()


async def test_a_ticket_that_is_not_fit_leaves_what_the_container_has_simulated(
    directory: Path,
) -> None:
    bench = bench_of(directory, webapp01=10, webapp02=2)
    record = await bench.leases.make(bench.request(1, "WebApp01", "WebApp02"))
    before = files(directory, 1)
    for identity in bench.identities.held():
        assert identity.ticket is not None
        identity.ticket = replace(identity.ticket, ccache=b"another")
    later = datetime.now(UTC) + timedelta(hours=3)
    bench.leases._delivery._now = lambda: later
    await bench.leases._delivery.give(record)
    after = files(directory, 1)
    assert after["krb5cc_webapp02"] == before["krb5cc_webapp02"]
    assert after["krb5cc_webapp01"] == after["krb5cc"] == b"another"
    await bench.close()


@pytest.mark.parametrize("current", [True, False])
async def test_a_record_that_is_not_current_any_more_is_not_written_simulated(
    directory: Path, *, current: bool
) -> None:
    """It was released while its files were written; its record would come back."""
    bench = bench_of(directory, webapp01=10)
    record = await bench.leases.make(bench.request(1))
    journaled = list(Journal(directory / "journal").records())
    bench.identities.held()[0].end += timedelta(hours=1)
    given = await bench.leases._delivery.give(record, is_current=lambda: current)
    assert given.ticket_end != record.ticket_end
    assert (bench.leases.get(record.lease_id) is given) is current
    assert (list(Journal(directory / "journal").records()) == journaled) is not current
    await bench.close()


async def test_every_account_that_fails_is_named_and_nobody_holds_the_others_simulated(
    directory: Path,
) -> None:
    bench = bench_of(directory, webapp02=10)
    with pytest.raises(CredspecError) as caught:
        await bench.leases.make(bench.request(1, *ACCOUNTS))
    where = [problem.where for problem in caught.value.problems]
    assert where == ["webapp01", "webapp03"]
    assert [identity.holders for identity in bench.identities.held()] == [set()]
    assert files(directory, 1) == {}
    assert list((directory / "journal").iterdir()) == []
    await bench.close()


async def test_a_second_request_for_an_id_replaces_the_first_wholly_simulated(
    directory: Path,
) -> None:
    """Else the accounts of the first are held, and renewed, for as long as the agent runs."""
    bench = bench_of(directory, webapp01=10, webapp02=10, webapp03=10)
    await bench.leases.make(bench.request(1, *ACCOUNTS))
    first = files(directory, 1)
    record = await bench.leases.make(bench.request(1, "WebApp02"))
    holders: dict[str, Any] = {i.name.account: i.holders for i in bench.identities.held()}
    assert holders == {"webapp01": set(), "webapp02": {record.lease_id}, "webapp03": set()}
    assert files(directory, 1).keys() == {"krb5cc", "krb5.conf"} < first.keys()
    await bench.close()
