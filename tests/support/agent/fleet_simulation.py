"""The real scheduler of each host of a fleet, under a virtual clock."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from credspec.agent.identities.refresh_schedule import RefreshSchedule

START = datetime(2026, 1, 1, tzinfo=UTC)
LIFE = timedelta(hours=10)
"""Of a ticket, as Active Directory has it unless told otherwise."""

Span = tuple[timedelta, timedelta]


@dataclass
class Run:
    """What a simulation saw: attempts in each minute, and the smallest share of a life left."""

    attempts: Counter[int] = field(default_factory=Counter)
    least_left: float = 1.0

    def peak(self, minutes: Iterable[int]) -> int:
        return max(self.attempts[minute] for minute in minutes)


def simulate(
    hosts: int, accounts: int, length: timedelta, *, down: Span | None = None, first: int = 0
) -> Run:
    """Let the real scheduler of each host run; all start at once, an answer takes no time.

    `first` is the number of the first host, which chance depends on.
    """
    run = Run()
    for seed in range(first, first + hosts):
        _simulate_host(run, random.Random(seed), accounts, length, down)
    return run


def _simulate_host(
    run: Run, chance: random.Random, accounts: int, length: timedelta, down: Span | None
) -> None:
    schedule: RefreshSchedule[int] = RefreshSchedule(chance.uniform)
    ends = dict.fromkeys(range(accounts), START + LIFE)
    for number in ends:
        schedule.add(number, start=START, end=START + LIFE, now=START)
    now = START
    while (when := schedule.next_time()) is not None and when < START + length:
        now = max(now, when)
        for number in schedule.due(now):
            run.attempts[int((now - START).total_seconds()) // 60] += 1
            if down is not None and down[0] <= now - START < down[1]:
                schedule.failed(number, now, unreachable=True)
                continue
            run.least_left = min(run.least_left, (ends[number] - now) / LIFE)
            ends[number] = now + LIFE
            schedule.succeeded(number, start=now, end=now + LIFE, now=now)
