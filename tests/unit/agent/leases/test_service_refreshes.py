"""When leases with tickets of services are given new ones; clock and chance are simulated."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from credspec.agent.leases.background import BackgroundTasks
from credspec.agent.leases.service_content import HeldTicket
from credspec.agent.leases.service_refreshes import ServiceRefreshes

START = datetime(2026, 11, 27, tzinfo=UTC)


class Simulation:
    """A clock that a sleep puts forward, and the refreshes that it led to."""

    def __init__(self, *, share: float = 0.5) -> None:
        self.now = START
        self.refreshed: list[tuple[str, timedelta]] = []
        self.refreshes = ServiceRefreshes(
            self.refresh,
            BackgroundTasks(),
            now=lambda: self.now,
            sleep=self.sleep,
            spread=lambda low, high: low + (high - low) * share,
        )

    async def refresh(self, lease_id: str) -> None:
        self.refreshed.append((lease_id, self.now - START))

    async def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    async def until_idle(self) -> None:
        for _ in range(200):
            await asyncio.sleep(0)


def ticket(minutes: float, *, start: datetime | None = START) -> HeldTicket:
    return HeldTicket("A$@A.TEST", start, START + timedelta(minutes=minutes), ())


@pytest.mark.parametrize(("share", "minutes"), [(0, 5), (1, 6)])
async def test_between_half_and_six_tenths_of_the_shortest_life(share: int, minutes: int) -> None:
    simulation = Simulation(share=share)
    simulation.refreshes.plan("a", [ticket(600), ticket(10)], 0)
    assert simulation.refreshes.planned("a") == START + timedelta(minutes=minutes)
    await simulation.until_idle()
    assert simulation.refreshed == [("a", timedelta(minutes=minutes))]
    assert simulation.refreshes.planned("a") is None


async def test_after_failures_sooner_and_then_less_often() -> None:
    simulation = Simulation(share=1)
    planned = []
    for failures in (1, 2, 3, 20):
        simulation.refreshes.plan("a", [ticket(600)], failures)
        planned.append(simulation.refreshes.planned("a") - START)  # type: ignore[operator]
    assert [each.total_seconds() for each in planned] == [5, 10, 20, 300]


async def test_one_that_is_overdue_is_not_asked_for_without_end() -> None:
    simulation = Simulation()
    simulation.now = START + timedelta(minutes=9)
    simulation.refreshes.plan("a", [ticket(10)], 0)
    due = simulation.refreshes.planned("a")
    assert due is not None
    assert simulation.now < due <= START + timedelta(minutes=10)


async def test_one_whose_start_only_the_file_knows() -> None:
    simulation = Simulation(share=0)
    simulation.refreshes.plan("a", [ticket(10, start=None)], 0)
    assert simulation.refreshes.planned("a") == START + timedelta(minutes=5)


async def test_a_clock_that_was_set_hastens_all() -> None:
    simulation = Simulation()
    for lease in "ab":
        simulation.refreshes.plan(lease, [ticket(600)], 0)
    simulation.refreshes.hasten_all()
    await simulation.until_idle()
    assert sorted(simulation.refreshed) == [("a", timedelta()), ("b", timedelta())]
    simulation.refreshes.hasten_all()
    await simulation.until_idle()
    assert len(simulation.refreshed) == 2


async def test_without_any_ticket_it_is_tried_again() -> None:
    simulation = Simulation()
    simulation.refreshes.plan("a", [], 0)
    await simulation.until_idle()
    assert [lease for lease, _ in simulation.refreshed] == ["a"]


async def test_each_lease_in_its_turn_and_none_that_has_ended() -> None:
    simulation = Simulation(share=0)
    for lease, minutes in (("c", 30), ("a", 10), ("b", 20)):
        simulation.refreshes.plan(lease, [ticket(minutes)], 0)
    simulation.refreshes.end("b")
    simulation.refreshes.end("unknown")
    simulation.refreshes.hasten("d")
    await simulation.until_idle()
    assert [lease for lease, _ in simulation.refreshed] == ["d", "a", "c"]
    # The next one finds it at work again.
    simulation.refreshes.hasten("a")
    await simulation.until_idle()
    assert [lease for lease, _ in simulation.refreshed][-1] == "a"
