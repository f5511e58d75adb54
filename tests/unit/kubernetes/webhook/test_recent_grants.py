"""What is remembered of the API server's answers, and for how long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from credspec.kubernetes.webhook.recent_grants import REMEMBERED_SECONDS, RecentGrants

NAMES = st.sampled_from("ab")
STEPS = st.lists(st.tuples(NAMES, NAMES, NAMES, st.floats(0, 4), st.booleans()), max_size=30)


@given(STEPS)
def test_a_grant_holds_for_its_seconds_and_for_itself_alone(
    steps: list[tuple[str, str, str, float, bool]],
) -> None:
    now = 0.0
    grants = RecentGrants(lambda: now)
    added: dict[tuple[str, str, str], float] = {}
    for namespace, account, spec, seconds, is_added in steps:
        now += seconds
        key = (namespace, account, spec)
        expected = key in added and now - added[key] < REMEMBERED_SECONDS
        assert grants.holds(*key) is expected
        if is_added:
            grants.add(*key)
            added[key] = now


def test_the_oldest_is_forgotten_before_there_are_too_many() -> None:
    grants = RecentGrants(lambda: 0.0)
    grants.add("shop", "web", "first")
    grants.add("shop", "web", "second")
    grants.add("shop", "web", "first")
    for number in range(4095):
        grants.add("shop", "web", f"s{number}")
    assert [grants.holds("shop", "web", name) for name in ("first", "second")] == [True, False]
