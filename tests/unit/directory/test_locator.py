from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.directory.locator import (
    DomainController,
    Locator,
    SrvRecord,
    order_by_preference,
    valid_domain,
)
from credspec.errors import UnreachableError, UsageError

records = st.lists(
    st.builds(
        SrvRecord,
        priority=st.integers(0, 3),
        weight=st.integers(0, 65535),
        port=st.just(389),
        target=st.text("abc", min_size=1, max_size=3),
    ),
    max_size=12,
)


class FixedDns:
    """DNS with the answers of a dictionary."""

    def __init__(self, srv: list[SrvRecord], addresses: dict[str, list[str]]) -> None:
        self._srv, self._addresses = srv, addresses
        self.asked: list[str] = []

    def srv(self, name: str) -> Sequence[SrvRecord]:
        self.asked.append(name)
        return self._srv

    def addresses(self, host: str) -> Sequence[str]:
        return self._addresses.get(host, [])


@given(records, st.randoms(use_true_random=False))
def test_order_keeps_every_record_and_the_priorities(
    found: list[SrvRecord], chance: random.Random
) -> None:
    ordered = order_by_preference(found, chance.randint)
    assert Counter(ordered) == Counter(found)
    assert [r.priority for r in ordered] == sorted(r.priority for r in found)


def test_weights_decide_how_often_a_controller_is_first() -> None:
    found = [SrvRecord(0, 30, 389, "heavy"), SrvRecord(0, 10, 389, "light")]
    chance = random.Random(1)
    first = Counter(order_by_preference(found, chance.randint)[0].target for _ in range(4000))
    assert 2.4 < first["heavy"] / first["light"] < 3.8


def test_asks_for_the_controllers_record_and_fails_over_to_those_that_answer() -> None:
    dns = FixedDns(
        [SrvRecord(0, 1, 389, "dc1.a.test"), SrvRecord(1, 1, 389, "dc2.a.test")],
        {"dc1.a.test": ["192.0.2.1"], "dc2.a.test": ["192.0.2.2", "2001:db8::2"]},
    )
    locator = Locator(dns, probe=lambda address, _: address != "192.0.2.1")
    assert locator.locate("A.test.") == [
        DomainController("dc2.a.test", ("192.0.2.2", "2001:db8::2"))
    ]
    assert dns.asked == ["_ldap._tcp.dc._msdcs.a.test"]


def test_no_record() -> None:
    with pytest.raises(UnreachableError, match="domain-not-found"):
        Locator(FixedDns([], {})).locate("a.test")


def test_no_controller_answers() -> None:
    dns = FixedDns([SrvRecord(0, 1, 389, "dc1.a.test")], {"dc1.a.test": ["192.0.2.1", "192.0.2.2"]})
    with pytest.raises(UnreachableError, match=r"dc1\.a\.test \(192\.0\.2\.1\).*dc-unreachable"):
        Locator(dns, probe=lambda *_: False).locate("a.test")


def test_a_single_controller_is_not_probed() -> None:
    dns = FixedDns([SrvRecord(0, 1, 389, "dc1.a.test")], {"dc1.a.test": ["192.0.2.1"]})
    found = Locator(dns, probe=lambda *_: False).locate("a.test")
    assert found == [DomainController("dc1.a.test", ("192.0.2.1",))]


def test_controllers_without_an_address() -> None:
    dns = FixedDns([SrvRecord(0, 1, 389, "dc1.a.test")], {})
    with pytest.raises(UnreachableError, match="dc-unreachable"):
        Locator(dns, probe=lambda *_: True).locate("a.test")


@pytest.mark.parametrize(
    "name", ["", ".", "a..b", "-a.test", "a/b", "a\nb", "a b", "x" * 64, "a." * 130, "é.test", "*"]
)
def test_names_that_are_no_domain(name: str) -> None:
    with pytest.raises(UsageError, match="domain-name-invalid"):
        valid_domain(name)
