from __future__ import annotations

import asyncio
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.gateway.body_memory import BodyMemory, NoMemoryLeftError
from credspec.sockets.peers import Peer

# Others than the one that runs the gateway, who has no share.
UIDS = (0, *(os.geteuid() + n for n in (1001, 1002, 1003)))
ROOT, ONE, TWO, THREE = (Peer(uid=uid, pid=1) for uid in UIDS)


async def test_one_user_has_its_share_and_others_theirs() -> None:
    memory = BodyMemory(100, 50, seconds=0.05)
    with memory.share(ONE) as one, memory.share(ONE) as more, memory.share(TWO) as two:
        await one.grow_to(30)
        await one.grow_to(40)
        await one.grow_to(10)
        assert memory.taken == 40
        with pytest.raises(NoMemoryLeftError):
            await more.grow_to(11)
        await two.grow_to(50)
        with memory.share(THREE) as three:
            with pytest.raises(NoMemoryLeftError):
                await three.grow_to(11)
            await three.grow_to(10)
            with memory.share(ROOT) as root:
                await root.grow_to(100)
                assert memory.taken == 200
    assert memory.taken == 0


async def test_who_finds_none_left_has_it_as_soon_as_it_is_given_back() -> None:
    memory = BodyMemory(100, 50, seconds=10)
    with memory.share(ONE) as one, memory.share(ONE) as two:
        await one.grow_to(50)
        waiting = asyncio.create_task(two.grow_to(20))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        one.give_back()
        await waiting
        assert memory.taken == 20


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 60)), max_size=60))
def test_no_sequence_takes_more_than_there_is(steps: list[tuple[int, int]]) -> None:
    async def run() -> None:
        memory = BodyMemory(100, 50, seconds=0)
        shares = [memory.share(peer) for peer in (ROOT, ROOT, ONE, ONE, TWO, THREE)]
        opened = [share.__enter__() for share in shares]
        for which, count in steps:
            try:
                await opened[which].grow_to(count)
            except NoMemoryLeftError:
                opened[which].give_back()
            assert memory.taken <= 200
        for share in shares:
            share.__exit__(None, None, None)
        assert memory.taken == 0

    asyncio.run(run())
