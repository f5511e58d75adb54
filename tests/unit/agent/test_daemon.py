"""The agent's process: work that goes on beside its requests."""

from __future__ import annotations

import asyncio

import pytest

from credspec.agent import daemon


async def test_work_waits_before_its_first_time_and_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    happened: list[str | float] = []

    async def sleep(seconds: float) -> None:
        happened.append(seconds)
        if happened.count("work") == 2:
            raise asyncio.CancelledError

    async def work() -> None:
        happened.append("work")

    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await daemon._for_ever("work", work, 30.0, first=2.0)
    assert happened == [2.0, "work", 30.0, "work", 30.0]
