"""What a fleet of nodes asks of the API server: the real driver of each, with a virtual clock.

Every pod of every node is restarted once within half an hour. The domain is not asked for them: the
nodes hold their identities.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ProcessPoolExecutor

from measure import figure
from support.kubernetes.node_simulation import Requests, simulate

NODES = int(os.environ.get("CREDSPEC_BENCH_HOSTS", "10000"))
PODS, ACCOUNTS = 20, 5
SECONDS = 1800
PART = 50
STEADY = 1.5
WINDOW = 10
MOST = 3


def part(first: int) -> Requests:
    """Simulate some of the nodes."""
    return simulate(min(PART, NODES - first), PODS, ACCOUNTS, SECONDS, first=first)


def main() -> None:
    """Print the rows."""
    whole = Requests()
    with ProcessPoolExecutor() as pool:
        for number, found in enumerate(pool.map(part, range(0, NODES, PART)), 1):
            whole.update(found)
            if sys.stderr.isatty():
                sys.stderr.write(f"\rnodes: {min(number * PART, NODES)} of {NODES} simulated")
    seconds = [whole.api[second] for second in range(SECONDS)]
    mean = sum(seconds) / SECONDS
    peak = max(sum(seconds[at : at + WINDOW]) / WINDOW for at in range(0, SECONDS, WINDOW))
    pods = sum(whole.leases[second] for second in range(SECONDS))
    who = f"{NODES:,} nodes x {PODS} pods, all restarted in 30 minutes"
    each = sum(seconds) / pods
    note = f"{each:.1f} a pod, with the reviews of those that live"
    figure(f"{who}: API requests", f"{mean:.0f} /s", note, "at most 3 a pod", met=each <= MOST)
    is_met = peak <= STEADY * mean
    figure(
        f"{who}: busiest {WINDOW} seconds",
        f"{peak:.0f} /s",
        f"{peak / mean:.2f} x the mean",
        f"<= {STEADY:g} x",
        met=is_met,
    )


if __name__ == "__main__":
    main()
