from __future__ import annotations

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from credspec.agent.doors.http.per_turn_limit import PerTurnLimit
from support.agent.loop_turns import TurnCounter


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=40),
)
def test_no_turn_has_more_and_the_order_is_kept(
    most: int, arrivals: list[tuple[int, bool]]
) -> None:
    async def run() -> None:
        turns, limit = TurnCounter(), PerTurnLimit(most)
        went_on: list[tuple[int, int]] = []

        async def request(number: int) -> None:
            await limit.wait()
            went_on.append((number, turns.number))

        tasks: list[asyncio.Task[None]] = []
        cancelled = set()
        for number, (pause, is_cancelled) in enumerate(arrivals):
            tasks.append(asyncio.create_task(request(number)))
            for _ in range(pause):
                await asyncio.sleep(0)
            if is_cancelled and tasks[-1].cancel():
                cancelled.add(number)
        async with asyncio.timeout(60):
            await asyncio.gather(*tasks, return_exceptions=True)
        turns.stop()
        assert {number for number, _ in went_on} == set(range(len(arrivals))) - cancelled
        assert [number for number, _ in went_on] == sorted(number for number, _ in went_on)
        assert max(Counter(turn for _, turn in went_on).values(), default=0) <= most

    asyncio.run(run())


async def test_alone_one_does_not_wait() -> None:
    turns, limit = TurnCounter(), PerTurnLimit(1)
    for _ in range(3):
        before = turns.number
        await limit.wait()
        assert turns.number == before
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    turns.stop()
