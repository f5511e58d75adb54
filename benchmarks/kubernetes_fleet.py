"""What a fleet of nodes asks of the API server and of its domain: their real code, a virtual clock.

Every pod of every node is restarted once within half an hour. In another half an hour none is, but
all nodes have started at the same moment.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from measure import figure
from support.kubernetes.node_simulation import Requests, simulate

NODES = int(os.environ.get("CREDSPEC_BENCH_HOSTS", "10000"))
PODS, ACCOUNTS = 20, 5
SECONDS = 1800
# The start itself is over by then, and nothing was asked since.
STARTED = 180
PART = 50
STEADY = 1.5
WINDOW = 10
LONG_WINDOW = 60  # of what comes seldom
MOST = 3


def part(first: int) -> Requests:
    """Simulate some of the nodes, restarted."""
    return simulate(min(PART, NODES - first), PODS, ACCOUNTS, SECONDS, first=first)


def part_at_once(first: int) -> Requests:
    """Simulate some of the nodes, started together."""
    nodes = min(PART, NODES - first)
    return simulate(nodes, PODS, ACCOUNTS, SECONDS, first=first, is_restarted=False, at_once=True)


def main() -> None:
    """Print the rows."""
    restarted, at_once = Requests(), Requests()
    with ProcessPoolExecutor() as pool:
        for whole, simulated in ((restarted, part), (at_once, part_at_once)):
            for number, found in enumerate(pool.map(simulated, range(0, NODES, PART)), 1):
                whole.update(found)
                if sys.stderr.isatty():
                    sys.stderr.write(f"\rnodes: {min(number * PART, NODES)} of {NODES} simulated")
    rows(NODES, restarted, at_once)


def rows(nodes: int, restarted: Requests, at_once: Requests) -> None:
    """Print what was found."""
    who = f"{nodes:,} nodes x {PODS} pods, restarted in 30 minutes"
    pods = sum(restarted.leases[second] for second in range(SECONDS))
    for what, counter, most, window in (
        ("drivers to API server", restarted.api, MOST, WINDOW),
        ("webhook to API server", restarted.webhook, None, WINDOW),
        ("searches and tickets", restarted.domain, None, LONG_WINDOW),
        ("looks for controllers", restarted.connects, None, WINDOW),
    ):
        each = sum(counter[second] for second in range(SECONDS)) / pods
        target = "" if most is None else f"at most {most} a pod"
        mean = sum(counter[second] for second in range(SECONDS)) / SECONDS
        met = most is None or each <= most
        figure(f"{who}: {what}", f"{mean:.0f} /s", f"{each:.1f} a pod", target, met=met)
        busiest(f"{who}: {what}", counter, window)
    what = f"{nodes:,} nodes started at once: drivers to API server"
    busiest(what, at_once.api, WINDOW, start=STARTED)


def busiest(what: str, counter: Counter[int], window: int, *, start: int = 0) -> None:
    """Print how much more than on average is asked in the busiest seconds."""
    windows = [
        sum(counter[second] for second in range(at, at + window)) / window
        for at in range(start, SECONDS, window)
    ]
    mean, peak = sum(windows) / len(windows), max(windows)
    note = f"{peak / mean:.2f} x the mean of {mean:.0f}"
    target = f"<= {STEADY:g} x"
    is_met = peak <= STEADY * mean
    figure(f"{what}, busiest {window} s", f"{peak:.0f} /s", note, target, met=is_met)


if __name__ == "__main__":
    main()
