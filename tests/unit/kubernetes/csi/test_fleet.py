"""Many nodes, simulated around the driver's own code: what they ask the API server together."""

from __future__ import annotations

from support.kubernetes.node_simulation import simulate

NODES, PODS, ACCOUNTS, SECONDS = 16, 20, 5, 1800.0


def test_simulated_nodes_ask_twice_for_each_new_pod_and_seldom_for_those_that_live() -> None:
    found = simulate(NODES, PODS, ACCOUNTS, SECONDS)
    restarts = sum(found.leases[second] for second in range(int(SECONDS)))
    assert restarts == NODES * PODS
    asked = sum(found.api[second] for second in range(int(SECONDS)))
    # Living pods share a review and a read of each account, at most every 480 seconds.
    reviews = NODES * ACCOUNTS * SECONDS / 480 * 2
    assert 2 * restarts <= asked <= 2 * restarts + reviews
    parts = [sum(found.api[second] for second in range(at, at + 300)) for at in range(0, 1800, 300)]
    assert max(parts) <= 1.5 * asked / len(parts)
