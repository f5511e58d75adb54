from __future__ import annotations

import asyncio
import os
import random

import pytest

from credspec.gateway.connection_turns import ConnectionTurns
from credspec.sockets.peers import Peer

# Others than the one that runs the gateway, whose connections have no share.
FIRST, SECOND = os.geteuid() + 1001, os.geteuid() + 1002
ROOT, ONE, TWO = (Peer(uid=uid, pid=1) for uid in (0, FIRST, SECOND))


class Turns(ConnectionTurns):
    """Turns of which each lasts until it is told to end."""

    def __init__(self, total: int) -> None:
        super().__init__(total)
        self.served: list[int] = []
        self.tasks: list[tuple[Peer, asyncio.Event, asyncio.Task[None]]] = []

    def ask(self, peer: Peer) -> asyncio.Event:
        end = asyncio.Event()

        async def serve() -> None:
            async with self.turn(peer):
                self.served.append(peer.uid)
                try:
                    await end.wait()
                finally:
                    self.served.remove(peer.uid)

        self.tasks.append((peer, end, asyncio.create_task(serve())))
        return end

    async def close(self) -> None:
        for _, _, task in self.tasks:
            task.cancel()
        await asyncio.gather(*(task for _, _, task in self.tasks), return_exceptions=True)
        assert self._admission.open_connections == 0


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_user_over_its_share_waits_and_others_do_not() -> None:
    turns = Turns(40)  # 10 for root, and of the other 30 a quarter for each
    own = [turns.ask(ONE) for _ in range(50)]
    await settle()
    assert turns.served.count(FIRST) == 7
    turns.ask(TWO)
    turns.ask(ROOT)
    await settle()
    assert (turns.served.count(SECOND), turns.served.count(0)) == (1, 1)
    own[0].set()
    await settle()
    assert turns.served.count(FIRST) == 7
    assert turns.waiting == 42
    await turns.close()


async def test_root_comes_first_and_then_users_in_turn() -> None:
    turns = Turns(4)
    held = [turns.ask(ROOT) for _ in range(4)]
    await settle()
    for peer in (ONE, ONE, TWO, ROOT):
        turns.ask(peer)
    await settle()
    assert turns.served == [0] * 4
    held[0].set()
    await settle()
    assert turns.served == [0] * 4
    held[1].set()
    await settle()
    assert sorted(turns.served) == [0, 0, 0, FIRST]
    held[2].set()
    await settle()
    assert sorted(turns.served) == [0, 0, FIRST, SECOND]
    await turns.close()


async def test_those_who_go_while_they_wait_take_no_turn() -> None:
    turns = Turns(1)
    first = turns.ask(ROOT)
    await settle()
    for _ in range(5):
        turns.ask(ROOT)
    await settle()
    for _, _, task in turns.tasks[1:5]:
        task.cancel()
    first.set()
    # Given its turn in the moment in which it goes.
    turns.tasks[5][2].cancel()
    await settle()
    turns.ask(ROOT)
    await settle()
    assert turns.served == [0]
    await turns.close()


@pytest.mark.parametrize("seed", range(20))
async def test_any_order_of_events_keeps_the_shares_and_serves_all(seed: int) -> None:
    chance, turns = random.Random(seed), Turns(12)
    for _ in range(200):
        step = chance.random()
        if step < 0.5:
            turns.ask(chance.choice([ROOT, ONE, TWO]))
        elif step < 0.8 and turns.tasks:
            chance.choice(turns.tasks)[1].set()
        elif turns.tasks:
            chance.choice(turns.tasks)[2].cancel()
        if chance.random() < 0.5:
            await settle()
            assert len(turns.served) <= 12
            assert turns.served.count(FIRST) <= 2
            assert turns.served.count(SECOND) <= 2
    for _, end, _ in turns.tasks:
        end.set()
    async with asyncio.timeout(10):
        await asyncio.gather(*(task for _, _, task in turns.tasks), return_exceptions=True)
    assert (turns.served, turns.waiting) == ([], 0)
    await turns.close()
