from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credspec.agent.leases.directory import LeaseDirectory
from credspec.agent.leases.retries import LeaseRetries
from credspec.config.policy import Policy
from credspec.errors import CredspecError
from support.agent.scripted_leases import ScriptedLeases, directory_in_memory


class Naps:
    """Sleeps that end at once, and how long they would have been."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


async def settled(retries: LeaseRetries) -> None:
    async with asyncio.timeout(30):
        while len(retries):
            await asyncio.sleep(0)


@settings(max_examples=50)
@given(st.integers(1, 30), st.integers())
def test_soon_then_at_growing_intervals_of_five_minutes_at_most(failures: int, seed: int) -> None:
    async def tried() -> list[float]:
        naps, left = Naps(), failures

        async def renew(lease_id: str) -> bool:
            nonlocal left
            assert lease_id == "a"
            left -= 1
            return left == 0

        retries = LeaseRetries(renew, sleep=naps.sleep, spread=random.Random(seed).uniform)
        retries.begin("a")
        retries.begin("a")
        await settled(retries)
        return naps.seconds

    seconds = asyncio.run(tried())
    assert len(seconds) == failures
    assert 2.5 <= seconds[0] <= 5
    assert max(seconds) <= 300
    assert all(each >= 150 for each in seconds[7:])


async def test_one_that_has_ended_is_not_tried() -> None:
    tried: list[str] = []

    async def renew(lease_id: str) -> bool:
        tried.append(lease_id)
        return False

    retries = LeaseRetries(renew)
    for lease_id in ("a", "b"):
        retries.begin(lease_id)
    retries.end("a")
    retries.end("a")
    assert len(retries) == 1
    retries.end("b")
    await asyncio.sleep(0)
    assert (len(retries), tried) == (0, [])


async def test_a_defect_of_a_try_leaves_nothing_over() -> None:
    async def renew(_: str) -> bool:
        raise ZeroDivisionError

    retries = LeaseRetries(renew, sleep=Naps().sleep)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    retries.begin("a")
    await settled(retries)
    retries.begin("a")
    assert len(retries) == 1
    await settled(retries)


@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize("user", [None, 4711])
async def test_a_lease_that_could_not_be_renewed_gets_its_ticket_before_the_next_refresh(
    monkeypatch: pytest.MonkeyPatch, times: int, user: int | None
) -> None:
    with directory_in_memory() as directory:
        naps = Naps()
        policy = Policy(grpc_uids=frozenset({4711}), spec_sources=("raw",))
        bench = ScriptedLeases(directory, policy, sleep=naps.sleep)
        for number in (1, 2):
            await bench.leases.make(bench.request(number, uid=user if number == 1 else None))
        left = failing(monkeypatch, "lease1", times)
        [identity] = bench.identities.held()
        await bench.identities.refresh(identity.name)
        [identity] = bench.identities.held()
        assert identity.ticket is not None
        written = [directory / f"tree/lease{number}/account/krb5cc" for number in (1, 2)]
        async with asyncio.timeout(30):
            while left or {path.read_bytes() for path in written} != {identity.ticket.ccache}:
                await asyncio.sleep(0.01)
            while len(bench.leases._retries):
                await asyncio.sleep(0.01)
        assert bench.session.acquired == 2, "the domain was asked for nothing more"
        assert len(naps.seconds) == times
        await bench.close()


async def test_a_lease_that_is_released_or_renewed_meanwhile_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with directory_in_memory() as directory:
        bench = ScriptedLeases(directory)
        for number in (1, 2):
            await bench.leases.make(bench.request(number))
        failing(monkeypatch, "lease", 2)
        [identity] = bench.identities.held()
        await bench.identities.refresh(identity.name)
        assert len(bench.leases._retries) == 2
        await bench.leases.release(f"{1:032x}")
        assert len(bench.leases._retries) == 1
        await bench.identities.refresh(identity.name)
        assert len(bench.leases._retries) == 0
        await bench.close()


def failing(monkeypatch: pytest.MonkeyPatch, part: str, times: int) -> list[int]:
    """Let so many writes to directories of a name fail; return what is left of them."""
    real, left = LeaseDirectory.write, [0] * times

    def write(self: LeaseDirectory, files: dict[str, bytes], **more: int) -> None:
        if part in str(self.path) and left:
            left.pop()
            raise CredspecError.of("lease-directory-full", "simulated", where=str(Path("x")))
        real(self, files, **more)

    monkeypatch.setattr(LeaseDirectory, "write", write)
    return left
