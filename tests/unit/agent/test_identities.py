"""Identities with a scripted session: counts, single flight, refresh, failure. No network."""

from __future__ import annotations

import asyncio
import itertools
import threading
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from credspec.agent.identities import Identities, Identity, IdentityName
from credspec.directory.domain import DomainFacts
from credspec.errors import CredspecError, TooManyRequestsError, UnreachableError
from credspec.kerberos.tickets import Ticket
from credspec.session.domain_session import Acquisition

START = datetime(2026, 1, 1, tzinfo=UTC)
NAME = IdentityName("webapp01", "example.test")


class VirtualClock:
    """Time that moves only when somebody sleeps, and only a few times."""

    def __init__(self, moves: int) -> None:
        self.now = START
        self.moves = moves
        self.sleeps: list[float] = []
        self.renewed_at: list[datetime] = []

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        if len(self.sleeps) > self.moves:
            await asyncio.Event().wait()  # enough seen
        await asyncio.sleep(0.001)
        self.now += timedelta(seconds=seconds)


class ScriptedSession:
    """Stands for a domain: each acquisition gives a ticket of ten hours, or the next failure."""

    domain = "example.test"
    controllers = ()
    controller = None
    latency = None

    def __init__(self, clock: VirtualClock, failures: dict[int, CredspecError]) -> None:
        self.clock, self.failures, self.calls = clock, failures, 0

    def acquire(self, account: str) -> Acquisition:
        self.calls += 1
        if self.calls in self.failures:
            raise self.failures[self.calls]
        ticket = Ticket(
            f"{account}$@EXAMPLE.TEST",
            self.clock.now,
            self.clock.now + timedelta(hours=10),
            18,
            f"ticket {self.calls}".encode(),
        )
        return Acquisition(f"{account}$", ticket, self.clock.now + timedelta(days=30))

    def close(self) -> None:
        pass


def make(failures: dict[int, CredspecError] | None = None, *, moves: int = 6):
    clock = VirtualClock(moves)
    session = ScriptedSession(clock, failures or {})
    renewed: list[bytes] = []
    renewed_at: list[datetime] = clock.renewed_at

    async def note(identity: Identity) -> None:
        assert identity.ticket is not None
        renewed.append(identity.ticket.ccache)
        renewed_at.append(clock.now)

    identities = Identities(
        lambda _domain, _source: session,
        note,
        now=lambda: clock.now,
        sleep=clock.sleep,
        spread=lambda low, high: (low + high) / 2,
    )
    return identities, session, clock, renewed


def down() -> CredspecError:
    return UnreachableError.of("dc-unreachable", "down")


async def test_many_at_once_ask_once() -> None:
    identities, session, _, _ = make(moves=0)
    held = await asyncio.gather(*(identities.hold(NAME, f"lease{n}") for n in range(50)))
    assert session.calls == 1
    assert len({id(i) for i in held}) == 1
    assert len(held[0].holders) == 50
    await identities.close()


async def test_a_domain_that_hangs_holds_up_no_other() -> None:
    clock = VirtualClock(0)
    answered = threading.Event()

    class Hanging(ScriptedSession):
        def acquire(self, account: str) -> Acquisition:
            answered.wait(60)
            return super().acquire(account)

    sessions = {"example.test": ScriptedSession(clock, {}), "hangs.test": Hanging(clock, {})}

    async def note(_: Identity) -> None:
        pass

    identities = Identities(
        lambda domain, _: sessions[domain],
        note,
        now=lambda: clock.now,
        sleep=clock.sleep,
        spread=min,
    )
    # More than a domain has threads.
    waiting = [
        asyncio.create_task(identities.hold(IdentityName(f"a{n}", "hangs.test"), f"lease{n}"))
        for n in range(20)
    ]
    await identities.hold(NAME, "lease")
    assert not any(task.done() for task in waiting)
    answered.set()
    await asyncio.gather(*waiting)
    await identities.close()


async def test_a_defect_is_told_as_such_and_the_identity_is_tried_again() -> None:
    defect = cast("CredspecError", ZeroDivisionError("secret"))
    identities, session, _, renewed = make({2: defect}, moves=2000)
    identity = await identities.hold(NAME, "lease")
    while not renewed:
        await asyncio.sleep(0.001)
    assert session.calls >= 3
    assert identities.failures == 1
    assert identity.last_error is None
    await identities.close()


async def test_a_failure_reaches_all_and_leaves_nothing() -> None:
    identities, session, _, _ = make({1: down()}, moves=0)
    results = await asyncio.gather(
        *(identities.hold(NAME, f"lease{n}") for n in range(5)), return_exceptions=True
    )
    assert [type(r) for r in results] == [UnreachableError] * 5
    assert identities.held() == []
    await identities.hold(NAME, "later")
    assert session.calls == 2
    await identities.close()


async def test_tickets_are_replaced_in_time_and_given_on() -> None:
    identities, _, clock, renewed = make(moves=100_000)
    identity = await identities.hold(NAME, "lease")
    while len(renewed) < 3:
        await asyncio.sleep(0.001)
    assert renewed[:3] == [b"ticket 2", b"ticket 3", b"ticket 4"]
    gaps = [b - a for a, b in itertools.pairwise([START, *clock.renewed_at[:3]])]
    assert all(timedelta(0) < gap < timedelta(hours=7.5) for gap in gaps)
    assert identity.end - clock.now > timedelta(hours=2.5)
    await identities.close()


async def test_an_outage_is_told_and_ends() -> None:
    identities, _, _, renewed = make({2: down(), 3: down(), 4: down()}, moves=100_000)
    identity = await identities.hold(NAME, "lease")
    while identity.last_error is None:
        await asyncio.sleep(0.001)
    (status,) = identities.domains()
    assert status.outage_since is not None
    assert status.last_error is not None
    while not renewed:
        await asyncio.sleep(0.001)
    assert identity.last_error is None
    (status,) = identities.domains()
    assert (status.outage_since, status.last_error) == (None, None)
    assert identities.failures == 3
    await identities.close()


async def test_what_is_adopted_is_not_asked_for_until_it_is_its_time() -> None:
    identities, session, _, renewed = make(moves=0)
    times = {"start": START - timedelta(hours=1), "end": START + timedelta(hours=9)}
    for lease in ("one", "two"):
        identities.adopt(NAME, lease, tickets_in_place=True, **times)
    await asyncio.sleep(0.02)
    assert session.calls == 0
    (identity,) = identities.held()
    assert (identity.ticket, identity.holders) == (None, {"one", "two"})
    when = identities.refresh_at(NAME)
    assert when is not None
    assert START <= when < START + timedelta(hours=6.5)
    # A new lease needs the ticket itself, and all get the new one.
    assert (await identities.hold(NAME, "three")).ticket is not None
    assert session.calls == 1
    assert renewed == [b"ticket 1"]
    await identities.close()


async def test_an_adopted_ticket_that_is_missing_is_got_at_once() -> None:
    identities, session, _, renewed = make(moves=0)
    times = {"start": START, "end": START + timedelta(hours=10)}
    identities.adopt(NAME, "one", tickets_in_place=False, **times)
    while not renewed:
        await asyncio.sleep(0.001)
    assert session.calls == 1
    await identities.close()


async def test_the_last_release_drops_the_ticket_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("credspec.agent.identities._LINGER_SECONDS", 0.02)
    identities, session, _, _ = make(moves=0)
    await identities.hold(NAME, "one")
    await identities.hold(NAME, "two")
    identities.release(NAME, "one")
    await asyncio.sleep(0.05)
    assert len(identities.held()) == 1
    identities.release(NAME, "two")
    await identities.hold(NAME, "three")  # within the while: no new acquisition
    await asyncio.sleep(0.05)
    assert session.calls == 1
    identities.release(NAME, "three")
    await asyncio.sleep(0.05)
    assert identities.held() == []
    await identities.close()


async def test_specs_that_name_many_domains_take_few_threads() -> None:
    identities, session, _, _ = make(moves=0)
    await identities.hold(NAME, "lease")
    closed: list[str] = []

    class Unused(ScriptedSession):
        known_facts = None

        def __init__(self, domain: str) -> None:
            super().__init__(VirtualClock(0), {})
            self.domain = domain

        def facts(self) -> DomainFacts:
            raise down()

        def close(self) -> None:
            closed.append(self.domain)

    identities._open_session = lambda domain, _: Unused(domain)  # type: ignore[assignment]
    for number in range(300):
        with pytest.raises(UnreachableError):
            await identities.facts(f"d{number}.test")
        assert len(identities.domains()) <= 128
    assert len(closed) >= 300 - 128
    # The one that is in use is not among them.
    assert NAME.domain in {status.domain for status in identities.domains()}
    assert (await identities.hold(NAME, "another")).ticket is not None
    assert session.calls == 1
    await identities.close()


async def test_domains_that_are_all_being_asked_are_refused_beyond_a_number() -> None:
    release = threading.Event()

    class Waiting(ScriptedSession):
        known_facts = None

        def facts(self) -> DomainFacts:
            release.wait(60)
            raise down()

    identities, _, clock, _ = make(moves=0)
    identities._open_session = lambda _domain, _source: Waiting(clock, {})  # type: ignore[assignment]
    tasks = [asyncio.create_task(identities.facts(f"d{number}.test")) for number in range(128)]
    await asyncio.sleep(0.01)
    with pytest.raises(TooManyRequestsError, match="domains-too-many"):
        await identities.facts("one-more.test")
    release.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    await identities.close()


async def test_a_defect_of_the_schedule_does_not_end_the_refreshing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    identities, session, _, renewed = make(moves=50)
    monkeypatch.setattr("credspec.agent.identities._LONGEST_SLEEP_SECONDS", 3600.0)
    await identities.hold(NAME, "lease")
    (domain,) = identities._domains.values()
    real, calls = domain.schedule.due, 0

    def fails_once(now: datetime) -> list[IdentityName]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ZeroDivisionError
        return real(now)

    monkeypatch.setattr(type(domain.schedule), "due", lambda _, now: fails_once(now))
    while not renewed:
        await asyncio.sleep(0.001)
    assert session.calls >= 2
    await identities.close()


async def test_a_defect_in_renewing_leases_does_not_end_the_refreshing() -> None:
    identities, session, _, renewed = make(moves=2000)

    async def fails(_: Identity) -> None:
        if session.calls < 3:
            raise ZeroDivisionError
        renewed.append(b"")

    identities._renewed = fails
    await identities.hold(NAME, "lease")
    while not renewed:
        await asyncio.sleep(0.001)
    await identities.close()
