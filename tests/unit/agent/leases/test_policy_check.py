"""What the policy says of leases that exist: by their records, for as long as they last."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.agent.leases.policy_check import Refusals, check_lease
from credspec.agent.leases.record import LeaseRecord
from credspec.config.policy import SPEC_SOURCES, Policy, PolicyInForce
from credspec.errors import NotPermittedError

RECORD = LeaseRecord(
    lease_id="0" * 32,
    container="c1",
    runtime_state="/run/runc/c1",
    uid=1000,
    gid=1000,
    domain="example.test",
    default_account="WebApp01",
    accounts=("WebApp01", "OtherApp01@other.test"),
    created=datetime(2026, 1, 1, tzinfo=UTC),
)
ALL = Policy(
    accounts=("*",),
    keytabs=("*",),
    spec_sources=("file", "raw"),
    uids=frozenset({1000}),
    grpc_uids=frozenset({2000}),
)

NONE = replace(ALL, accounts=())


def codes(policy: Policy, record: LeaseRecord) -> list[str]:
    error = Refusals().of(policy, record)
    return [] if error is None else [problem.code for problem in error.problems]


@pytest.mark.parametrize(
    ("policy", "record", "expected"),
    [
        (Policy(), RECORD, []),
        (ALL, RECORD, []),
        (Policy(accounts=("*@example.test",)), RECORD, ["policy-account"]),
        (Policy(accounts=()), RECORD, ["policy-account"] * 2),
        (Policy(accounts=("WebApp01@example.test", "*@other.test")), RECORD, []),
        (Policy(), replace(RECORD, keytab=True), ["policy-keytab"] * 2),
        (Policy(keytabs=("WebApp01",)), replace(RECORD, keytab=True), ["policy-keytab"]),
        (ALL, replace(RECORD, keytab=True), []),
        (Policy(), replace(RECORD, spec_source="raw"), ["policy-spec-source"]),
        (ALL, replace(RECORD, spec_source="raw"), []),
        (Policy(spec_sources=()), RECORD, ["policy-spec-source"]),
        (Policy(), replace(RECORD, user=1000), ["policy-user"]),
        (ALL, replace(RECORD, user=1000), []),
        (ALL, replace(RECORD, user=2000), ["policy-user"]),
        # A call of credentials-fetcher's interface brings its document; its users are others.
        (Policy(), replace(RECORD, spec_source="kubernetes"), ["policy-spec-source"]),
        (Policy(spec_sources=("kubernetes",)), replace(RECORD, spec_source="kubernetes"), []),
        (Policy(), replace(RECORD, spec_source="grpc"), []),
        (Policy(spec_sources=()), replace(RECORD, spec_source="grpc"), []),
        (ALL, replace(RECORD, spec_source="grpc", user=2000), []),
        (ALL, replace(RECORD, spec_source="grpc", user=1000), ["policy-user"]),
        (
            Policy(accounts=("x",)),
            replace(RECORD, spec_source="raw", user=1, keytab=True),
            ["policy-user", "policy-spec-source", *["policy-account"] * 2, *["policy-keytab"] * 2],
        ),
    ],
)
def test_everything_that_was_asked_for_a_lease(
    policy: Policy, record: LeaseRecord, expected: list[str]
) -> None:
    assert codes(policy, record) == expected


lists = st.lists(st.sampled_from(["*", "WebApp01", "*@example.test", "*@other.test"]), max_size=2)
policies = st.builds(
    Policy,
    accounts=lists.map(tuple),
    keytabs=lists.map(tuple),
    spec_sources=st.sets(st.sampled_from(SPEC_SOURCES)).map(tuple),
    uids=st.frozensets(st.sampled_from([1000, 2000])),
    grpc_uids=st.frozensets(st.sampled_from([1000, 2000])),
)
records = st.builds(
    replace,
    st.just(RECORD),
    keytab=st.booleans(),
    user=st.sampled_from([None, 1000, 2000]),
    spec_source=st.sampled_from([*SPEC_SOURCES, "grpc"]),
)


@given(policies, policies, records)
def test_less_policy_never_allows_more(one: Policy, two: Policy, record: LeaseRecord) -> None:
    both = Policy(
        accounts=one.accounts + two.accounts,
        keytabs=one.keytabs + two.keytabs,
        spec_sources=one.spec_sources + two.spec_sources,
        uids=one.uids | two.uids,
        grpc_uids=one.grpc_uids | two.grpc_uids,
    )
    if codes(both, record):
        assert codes(one, record)
        assert codes(two, record)


def test_it_raises_what_it_says() -> None:
    with pytest.raises(NotPermittedError, match="policy-user"):
        check_lease(Policy(), replace(RECORD, user=5))


def test_a_policy_that_is_replaced_counts_at_once() -> None:
    in_force = PolicyInForce(ALL)
    seen: list[Policy] = []
    in_force.watched.append(seen.append)
    assert in_force.allows_user(1000, 0)
    in_force.replace(Policy())
    assert not in_force.allows_user(1000, 0)
    assert seen == [Policy()]


def test_what_one_policy_allowed_is_asked_again_of_another() -> None:
    refusals = Refusals()
    for policy, is_allowed in ((ALL, True), (NONE, False), (ALL, True), (replace(ALL), True)):
        for _ in range(2):
            assert (refusals.of(policy, RECORD) is None) == is_allowed


@pytest.mark.parametrize(
    "change",
    [
        {"user": 7},
        {"user": 1000, "spec_source": "grpc"},
        {"spec_source": "raw"},
        {"accounts": ("WebApp02",)},
        {"accounts": ("WebApp01", "OtherApp01@third.test")},
        {"domain": "another.test"},
        {"tickets": "services", "services": ("http/x.example.test",)},
        {"keytab": True},
    ],
)
def test_what_was_allowed_of_a_lease_allows_no_other(change: dict[str, Any]) -> None:
    policy = Policy(
        accounts=("WebApp01@example.test", "OtherApp01@other.test"),
        spec_sources=("file",),
        tickets=("tgt",),
        uids=frozenset({1000}),
    )
    refusals = Refusals()
    assert refusals.of(policy, RECORD) is None
    assert refusals.of(policy, replace(RECORD, lease_id="1" * 32)) is None
    assert refusals.of(policy, replace(RECORD, **change)) is not None
    assert refusals.of(policy, RECORD) is None
