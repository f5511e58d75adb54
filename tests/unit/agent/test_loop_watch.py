"""The event loop's longest hold is seen, whatever caused it."""

from __future__ import annotations

import asyncio
import time

from credspec.agent import loop_watch


def burn(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_what_holds_the_loop_is_measured() -> None:
    async def work() -> tuple[float, float]:
        selector = loop_watch.selector
        assert selector is not None
        selector.reset()
        await asyncio.sleep(0)
        burn(0.05)
        await asyncio.sleep(0.01)
        before = selector.longest_processor
        time.sleep(0.1)  # noqa: ASYNC251 - blocks it without the processor
        await asyncio.sleep(0.01)
        return before, selector.longest

    with asyncio.Runner(loop_factory=loop_watch.watched_loop) as runner:
        processor, wall = runner.run(work())
    loop_watch.selector = None
    assert processor >= 0.05
    assert wall >= 0.1


def test_waiting_is_not_holding() -> None:
    async def work() -> float:
        selector = loop_watch.selector
        assert selector is not None
        selector.reset()
        await asyncio.sleep(0.2)
        return selector.longest_processor

    with asyncio.Runner(loop_factory=loop_watch.watched_loop) as runner:
        assert runner.run(work()) < 0.1
    loop_watch.selector = None
