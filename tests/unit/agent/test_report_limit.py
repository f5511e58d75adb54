"""Floods of events: a few, and a number."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from credspec.agent import report_limit
from credspec.agent.report_limit import LimitedEvents, ReportLimit
from credspec.rate_limit import Suppressed
from credspec.service.events import Event


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_events_of_a_user_are_few_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    emitted: list[tuple[Event, dict[str, Any]]] = []
    monkeypatch.setattr(report_limit, "emit", lambda event, **more: emitted.append((event, more)))
    clock = Clock()
    events = LimitedEvents(clock=clock)
    for _ in range(100):
        events.emit(Event.LEASE_DENIED, 7, error="x")
        events.emit(Event.REQUEST_FAILED, 7, error="y")
    events.emit(Event.LEASE_DENIED, 8, error="x")
    assert len(emitted) == 21
    clock.now += 60
    events.emit(Event.LEASE_DENIED, 7, error="again")
    assert emitted[21:] == [
        (Event.LEASE_DENIED, {"uid": 7, "suppressed": 90}),
        (Event.REQUEST_FAILED, {"uid": 7, "suppressed": 90}),
        (Event.LEASE_DENIED, {"uid": 7, "error": "again"}),
    ]


async def test_a_flood_that_ends_is_summed_up_by_itself() -> None:
    found: list[Suppressed[str]] = []
    limit: ReportLimit[str] = ReportLimit(found.append, most=1, seconds=0.05)
    assert [limit.allows("a") for _ in range(3)] == [True, False, False]
    while not found:
        await asyncio.sleep(0.01)
    assert found == [Suppressed("a", 2)]
    assert limit.allows("a")
