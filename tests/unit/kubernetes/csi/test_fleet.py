"""Many nodes, simulated around driver, webhook and agent: what they ask together."""

from __future__ import annotations

from collections import Counter

from support.kubernetes.node_simulation import CONTROLLERS, simulate

NODES, PODS, ACCOUNTS, SECONDS = 16, 20, 5, 1800


def asked(counter: Counter[int], start: int = 0, end: int = SECONDS) -> int:
    return sum(counter[second] for second in range(start, end))


def parts(counter: Counter[int], start: int, length: int) -> list[int]:
    return [asked(counter, at, at + length) for at in range(start, SECONDS, length)]


def test_simulated_nodes_ask_twice_for_each_new_pod_and_seldom_for_those_that_live() -> None:
    found = simulate(NODES, PODS, ACCOUNTS, SECONDS)
    restarts = asked(found.leases)
    # A moment may be the last one of the time.
    assert NODES * PODS - 5 <= restarts <= NODES * PODS
    # Living pods share a review and a read of each account.
    reviews = NODES * ACCOUNTS * SECONDS / 180 * 2
    assert 2 * restarts <= asked(found.api) <= 2 * restarts + reviews
    # Here each node has accounts of its own: few pods follow one of theirs within five seconds.
    assert 1.9 * restarts <= asked(found.webhook) < 2 * restarts
    minutes = SECONDS / 60
    assert NODES * CONTROLLERS * minutes < asked(found.connects) < 4 * NODES * CONTROLLERS * minutes
    # The pods' identities stay: only what is refreshed in its turn and the look at the domain.
    assert NODES * minutes / 8 < asked(found.domain) < NODES * (minutes / 2.5 + 2 * ACCOUNTS)
    for counter in (found.api, found.webhook, found.connects):
        assert max(parts(counter, 0, 300)) <= 1.5 * asked(counter) / 6


def test_nodes_that_started_at_once_do_not_ask_again_at_once() -> None:
    nodes = 40
    found = simulate(nodes, PODS, ACCOUNTS, SECONDS, is_restarted=False, at_once=True)
    assert asked(found.leases) == nodes * PODS
    assert asked(found.api, 0, 15) == asked(found.api, 0, 60)
    # After 180 seconds at the soonest, and then at about the same rate all the time.
    assert asked(found.api, 60, 180) == 0
    later = parts(found.api, 180, 324)
    assert max(later) <= 1.5 * sum(later) / len(later)
