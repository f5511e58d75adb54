from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from credspec.agent.completion import completed
from credspec.errors import CredspecError, UsageError


async def test_it_returns_and_raises_what_the_work_does() -> None:
    async def fails() -> None:
        raise UsageError.of("x", "y")

    assert await completed(asyncio.sleep(0, "done")) == "done"
    with pytest.raises(UsageError):
        await completed(fails())


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancellation_waits_for_the_end_of_the_work(fails: bool, times: int) -> None:
    ended: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0.1)
        ended.append("work")
        if fails:
            raise CredspecError.of("x", "y")

    async def caller() -> None:
        try:
            await completed(work())
        finally:
            ended.append("caller")

    task = asyncio.create_task(caller())
    for _ in range(times):
        await asyncio.sleep(0.01)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["work", "caller"]


async def test_work_that_is_itself_cancelled_is_not_waited_for() -> None:
    async def work() -> None:
        raise asyncio.CancelledError

    with suppress(asyncio.CancelledError):
        async with asyncio.timeout(5):
            await completed(work())
