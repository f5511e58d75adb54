"""The look at the host's own domain; the domain is simulated by a scripted session."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import Any, cast

import pytest

from credspec.agent.home_domain_watch import HomeDomainWatch
from credspec.agent.identities.identities import Identities
from credspec.agent.identities.identity import IdentityName
from credspec.errors import CredspecError, NotPermittedError, UnreachableError
from support.agent.scripted_leases import SimulatedSession

DOMAIN = "example.test"
SILENT = UnreachableError.of("dns-unreachable", "no name server answers", where="DNS")
STALE = NotPermittedError.of("host-keytab-stale", "the domain refuses the key", where="keytab")


class Session:
    """Answers with the next of its outcomes; `released` lets a look that hangs go on."""

    domain = DOMAIN
    controllers = ()
    latency = None

    def __init__(self, *outcomes: CredspecError | None) -> None:
        self.outcomes = list(outcomes)
        self.controller: Any = None
        self.known_facts = None
        self.asked = 0
        self.released = threading.Event()
        self.released.set()

    def facts(self) -> object:
        self.asked += 1
        self.released.wait(30)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if outcome is not None:
            raise outcome
        return object()

    read_facts = facts

    def close(self) -> None:
        pass


class Looks:
    """A watch whose pauses end when the test lets them."""

    def __init__(self, session: Session) -> None:
        async def renewed(_: object) -> None:
            pass

        self.identities = Identities(lambda *_: cast("Any", session), renewed)
        self.pauses: list[float] = []
        self.go = asyncio.Semaphore(0)
        self.watch = HomeDomainWatch(
            self.identities, DOMAIN, sleep=self._sleep, spread=random.Random(1).uniform
        )
        self.task = asyncio.create_task(self.watch.run())

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await self.go.acquire()

    async def look(self) -> str | None:
        """Let one look happen, and return what hinders."""
        before = len(self.pauses)
        while not before:
            await asyncio.sleep(0)
            before = len(self.pauses)
        self.go.release()
        while len(self.pauses) == before:
            await asyncio.sleep(0.001)
        return await self.watch.hindrance(1)

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.identities.close()


class SlowToFail(SimulatedSession):
    """Gives tickets; a question for facts fails as soon as it is let go on."""

    def __init__(self) -> None:
        super().__init__()
        self.known_facts = None
        self.asked, self.released = threading.Event(), threading.Event()

    def facts(self) -> Any:
        self.asked.set()
        self.released.wait(30)
        raise SILENT

    read_facts = facts

    def close(self) -> None:
        pass


@pytest.mark.parametrize("is_first", [True, False], ids=["fails before", "fails after"])
async def test_a_ticket_that_is_got_meanwhile_ends_an_outage(*, is_first: bool) -> None:
    async def renewed(_: object) -> None:
        pass

    session = SlowToFail()
    identities = Identities(lambda *_: cast("Any", session), renewed)
    name = IdentityName("WebApp01", DOMAIN)
    asking = asyncio.create_task(identities.facts(DOMAIN, again=True))
    await asyncio.to_thread(session.asked.wait, 30)
    if is_first:
        session.released.set()
        await asyncio.gather(asking, return_exceptions=True)
        assert identities.domains()[0].outage_since is not None
    await identities.hold(name, "holder")
    session.released.set()
    await asyncio.gather(asking, return_exceptions=True)
    assert identities.domains()[0].outage_since is None
    await identities.close()


async def test_a_dead_name_server_is_known_before_anybody_asks_and_so_is_its_end() -> None:
    looks = Looks(Session(SILENT, SILENT, None))
    try:
        for _ in range(2):
            hindrance = await looks.look()
            assert hindrance is not None
            assert "does not answer since" in hindrance
            assert "[dns-unreachable]" in hindrance
        assert await looks.look() is None
        (status,) = looks.identities.domains()
        assert (status.outage_since, status.last_error) == (None, None)
    finally:
        await looks.close()


async def test_a_refusal_of_the_host_is_a_hindrance_too() -> None:
    looks = Looks(Session(STALE, None))
    try:
        hindrance = await looks.look()
        assert hindrance is not None
        assert "[host-keytab-stale]" in hindrance
        assert await looks.look() is None
    finally:
        await looks.close()


async def test_before_the_first_look_has_ended_it_is_not_ready() -> None:
    session = Session(None)
    session.released.clear()
    looks = Looks(session)
    try:
        looks.go.release()
        hindrance = await looks.watch.hindrance(0.05)
        assert hindrance == f"domain {DOMAIN} has not answered yet since the agent started"
        session.released.set()
        # Whoever asks waits a moment for it.
        assert await looks.watch.hindrance(30) is None
    finally:
        session.released.set()
        await looks.close()


async def test_looks_are_rare_spread_and_slower_while_the_domain_is_away() -> None:
    looks = Looks(Session(*[SILENT] * 6, None))
    try:
        for _ in range(7):
            await looks.look()
    finally:
        await looks.close()
    first, *retries, well = looks.pauses
    assert 0 <= first <= 2
    for pause, base in zip(retries, (5, 10, 20, 40, 60, 60), strict=True):
        assert 0.5 * base <= pause <= 1.5 * base
    assert 150 <= well <= 450


async def test_a_hundred_that_wait_ask_the_domain_once_at_a_time() -> None:
    session = Session(SILENT)
    session.released.clear()
    looks = Looks(session)
    try:
        asking = [asyncio.create_task(looks.identities.facts(DOMAIN)) for _ in range(100)]
        await asyncio.sleep(0.05)
        session.released.set()
        found = await asyncio.gather(*asking, return_exceptions=True)
        assert {str(error) for error in found} == {str(SILENT)}
        assert len({id(error) for error in found}) == 100
        assert session.asked == 1
        with pytest.raises(UnreachableError):
            await looks.identities.facts(DOMAIN)
        assert session.asked == 2
    finally:
        await looks.close()
