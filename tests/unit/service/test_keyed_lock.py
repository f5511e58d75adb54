"""A lock for each key: whatever is cancelled when, one holds it at a time, and none stays."""

from __future__ import annotations

import asyncio
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from credspec.service.keyed_lock import KeyedLock


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_callers_cancelled_at_any_time_never_hold_it_together(seed: int) -> None:
    asyncio.run(schedule(random.Random(seed)))


async def schedule(chance: random.Random) -> None:
    locks: KeyedLock[str] = KeyedLock()
    inside: set[str] = set()

    async def caller(key: str) -> None:
        async with locks.hold(key):
            assert key not in inside
            inside.add(key)
            try:
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
            finally:
                inside.discard(key)

    tasks: list[asyncio.Task[None]] = []
    for _ in range(60):
        # Some come just when one has let go and the next has not run yet.
        if chance.random() < 0.6:
            tasks.append(asyncio.create_task(caller(chance.choice("ab"))))
        await asyncio.sleep(0)
        if tasks and chance.random() < 0.2:
            chance.choice(tasks).cancel()
    for found in await asyncio.gather(*tasks, return_exceptions=True):
        assert found is None or isinstance(found, asyncio.CancelledError)
    assert len(locks) == 0


async def test_different_keys_do_not_wait_for_each_other() -> None:
    locks: KeyedLock[str] = KeyedLock()
    async with locks.hold("a"), asyncio.timeout(1), locks.hold("b"):
        assert len(locks) == 2
