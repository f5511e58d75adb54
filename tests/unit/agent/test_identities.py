"""Identities with a scripted session: counts, single flight, refresh, failure. No network."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from credspec.agent.domain_session import Acquisition
from credspec.agent.identities import Identities, Identity, IdentityName
from credspec.directory.managed_password import ManagedPassword
from credspec.errors import CredspecError, UnreachableError
from credspec.kerberos.tickets import Ticket

START = datetime(2026, 1, 1, tzinfo=UTC)
NAME = IdentityName("webapp01", "example.test")


class VirtualClock:
    """Time that moves only when somebody sleeps, and only a few times."""

    def __init__(self, moves: int) -> None:
        self.now = START
        self.moves = moves
        self.sleeps: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        if len(self.sleeps) > self.moves:
            await asyncio.Event().wait()  # enough seen
        self.now += timedelta(seconds=seconds)
        await asyncio.sleep(0)


class ScriptedSession:
    """Stands for a domain: each acquisition gives a ticket of ten hours, or the next failure."""

    domain = "example.test"
    controllers = ()

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
        password = ManagedPassword(b"c" * 256, None, timedelta(days=30), timedelta(days=30))
        return Acquisition(f"{account}$", ticket, password, self.clock.now)

    def close(self) -> None:
        pass


def make(failures: dict[int, CredspecError] | None = None, *, moves: int = 6):
    clock = VirtualClock(moves)
    session = ScriptedSession(clock, failures or {})
    renewed: list[bytes] = []

    async def note(identity: Identity) -> None:
        renewed.append(identity.acquisition.ticket.ccache)

    identities = Identities(
        lambda _: session,
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
    identities, _, clock, renewed = make()
    await identities.hold(NAME, "lease")
    while len(clock.sleeps) < 4:
        await asyncio.sleep(0.001)
    assert renewed[:2] == [b"ticket 2", b"ticket 3"]
    assert all(5 * 3600 <= s <= 6.7 * 3600 for s in clock.sleeps[:3])
    await identities.close()


async def test_failures_are_retried_later_and_later_and_told() -> None:
    identities, _, clock, renewed = make({2: down(), 3: down(), 4: down()})
    identity = await identities.hold(NAME, "lease")
    while len(clock.sleeps) < 4:
        await asyncio.sleep(0.001)
    assert clock.sleeps[1:4] == [3.75, 7.5, 15.0]
    while not renewed:
        await asyncio.sleep(0.001)
    assert identity.last_error is None
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
