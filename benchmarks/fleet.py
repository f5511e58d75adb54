"""What a fleet asks of its domain: the real scheduler of every host, with a virtual clock.

All hosts start in the same minute, which is the worst that can happen; in the middle of the time
all controllers are away for an hour. The unit is an acquisition: a password read and a ticket.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta

from measure import figure, series
from support.agent.fleet_simulation import Run, simulate

HOSTS = int(os.environ.get("CREDSPEC_BENCH_HOSTS", "10000"))
ACCOUNTS = 50
DAYS = 30
DOWN = timedelta(days=15), timedelta(days=15, hours=1)
DAY = 24 * 60
PART = 50
STEADY, RECOVERY = 1.5, 3.0


def part(first: int) -> Run:
    """Simulate some of the hosts."""
    hosts = min(PART, HOSTS - first)
    return simulate(hosts, ACCOUNTS, timedelta(days=DAYS), down=DOWN, first=first)


def fleet() -> Run:
    """Simulate all hosts, on all processors, and tell how far it is."""
    whole = Run()
    with ProcessPoolExecutor() as pool:
        for number, run in enumerate(pool.map(part, range(0, HOSTS, PART)), 1):
            whole.attempts.update(run.attempts)
            whole.least_left = min(whole.least_left, run.least_left)
            if sys.stderr.isatty():
                done = min(number * PART, HOSTS)
                sys.stderr.write(f"\rfleet: {done} of {HOSTS} hosts simulated")
    return whole


def main() -> None:
    """Print the rows."""
    run = fleet()
    minutes = [run.attempts[minute] for minute in range(DAYS * DAY)]
    begin, end = (int(moment.total_seconds()) // 60 for moment in DOWN)
    mean = sum(minutes) / len(minutes)
    who = f"{HOSTS:,} hosts x {ACCOUNTS}"
    compare(f"{who}: busiest minute before", minutes[:begin], mean, STEADY)
    compare(f"{who}: peak after a one-hour outage", minutes[end:], mean, RECOVERY)
    compare(f"{who}: attempts during the outage", minutes[begin:end], mean, None)
    left = run.least_left
    what = "least life left of any ticket"
    figure(f"{who}: {what}", f"{left:.0%}", "", "> 25 %", met=left > 0.25)
    around = minutes[begin - DAY // 2 : end + DAY]
    series("Acquisitions a minute, a whole fleet, an hour's outage", "a minute", around)


def compare(what: str, minutes: Sequence[int], mean: float, most: float | None) -> None:
    """Print the row of a span."""
    peak = max(minutes) / mean
    shown, note = f"{max(minutes)} a minute", f"{peak:6.2f} x the mean of {mean:.0f}"
    figure(what, shown, note, f"<= {most} x" if most else "", met=most is None or peak <= most)


if __name__ == "__main__":
    main()
