from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credspec.directory.controller_probe import Ping
from credspec.directory.locator import (
    ControllerPreference,
    DomainController,
    Locator,
    SrvRecord,
    order_by_preference,
    valid_domain,
)
from credspec.directory.netlogon_ping import ControllerFlag, NetlogonAnswer
from credspec.errors import UnreachableError, UsageError
from support.domain.netlogon_datagrams import WRITABLE, answer, datagram_of, done, message_id_of

DOMAIN = "_ldap._tcp.dc._msdcs.a.test"
NEAR = "_ldap._tcp.near._sites.dc._msdcs.a.test"

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
    """DNS with the answers of dictionaries; an error instead of an answer is raised."""

    def __init__(
        self,
        srv: list[SrvRecord],
        addresses: dict[str, Any],
        sites: dict[str, Any] | None = None,
    ) -> None:
        self._srv: dict[str, Any] = {DOMAIN: srv, **(sites or {})}
        self._addresses = addresses
        self.asked: list[str] = []

    def srv(self, name: str) -> Sequence[SrvRecord]:
        self.asked.append(name)
        return self._answer(self._srv.get(name, []))

    def addresses(self, host: str) -> Sequence[str]:
        return self._answer(self._addresses.get(host, []))

    @staticmethod
    def _answer(found: Any) -> Any:
        if isinstance(found, Exception):
            raise found
        return found


def controllers(*priorities: int, sites: dict[str, Any] | None = None) -> FixedDns:
    """DNS with dc1.a.test at 192.0.2.1 and so on, of these priorities."""
    numbers = range(1, len(priorities) + 1)
    return FixedDns(
        [record(n, priority) for n, priority in zip(numbers, priorities, strict=True)],
        {f"dc{n}.a.test": [f"192.0.2.{n}"] for n in range(1, 10)},
        sites,
    )


def record(number: int, priority: int = 0) -> SrvRecord:
    return SrvRecord(priority, 100, 389, f"dc{number}.a.test")


def first(low: int, high: int) -> int:
    """A chance that keeps the order of DNS."""
    del high
    return low


def says(said: dict[str, NetlogonAnswer | None]) -> Ping:
    """A network in which each address sends its answer; None is one without a value."""

    def ping(address: str, request: bytes, /) -> Iterator[bytes]:
        if address in said:
            message_id, found = message_id_of(request), said[address]
            yield datagram_of(found, message_id) if found else done(message_id)

    return ping


silence = says({})


def takes(*addresses: str) -> Callable[[str, int], bool]:
    return lambda address, _: address in addresses


def everybody(*_: object) -> bool:
    return True


def hosts(found: list[DomainController]) -> list[str]:
    return [controller.host.removesuffix(".a.test") for controller in found]


NEAR_BY = answer(controller_site="Near")
FAR_AWAY = answer()
READ_ONLY = answer(flags=ControllerFlag.LDAP | ControllerFlag.READ_ONLY)


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
    locator = Locator(dns, probe=takes("192.0.2.2", "2001:db8::2"), ping=silence)
    assert locator.locate("A.test.") == [
        DomainController("dc2.a.test", ("192.0.2.2", "2001:db8::2"))
    ]
    assert dns.asked == [DOMAIN]


def test_no_record() -> None:
    with pytest.raises(UnreachableError, match="domain-not-found"):
        Locator(FixedDns([], {})).locate("a.test")


def test_no_controller_answers() -> None:
    dns = FixedDns([SrvRecord(0, 1, 389, "dc1.a.test")], {"dc1.a.test": ["192.0.2.1", "192.0.2.2"]})
    with pytest.raises(UnreachableError, match=r"dc1\.a\.test \(192\.0\.2\.1\).*dc-unreachable"):
        Locator(dns, probe=takes(), ping=silence).locate("a.test")


def test_a_single_controller_is_probed_too() -> None:
    """A dead one costs the probe's short deadline here, and a library's long one later."""
    dns = controllers(0)
    with pytest.raises(UnreachableError, match="dc-unreachable"):
        Locator(dns, probe=takes(), ping=silence).locate("a.test")
    found = Locator(dns, probe=everybody, ping=silence).locate("a.test")
    assert found == [DomainController("dc1.a.test", ("192.0.2.1",))]


def test_controllers_without_an_address() -> None:
    dns = FixedDns([SrvRecord(0, 1, 389, "dc1.a.test")], {})
    with pytest.raises(UnreachableError, match="dc-unreachable"):
        Locator(dns, probe=everybody, ping=silence).locate("a.test")
    with pytest.raises(UnreachableError, match="dc-unreachable"):
        Locator(dns).candidates("a.test")


@pytest.mark.parametrize(
    "name", ["", ".", "a..b", "-a.test", "a/b", "a\nb", "a b", "x" * 64, "a." * 130, "é.test", "*"]
)
def test_names_that_are_no_domain(name: str) -> None:
    with pytest.raises(UsageError, match="domain-name-invalid"):
        valid_domain(name)


def test_candidates_are_what_dns_says_without_asking_them() -> None:
    def never(*_: object) -> Any:
        raise AssertionError

    found = Locator(controllers(2, 0, 1), probe=never, ping=never).candidates("a.test")
    assert hosts(found) == ["dc2", "dc3", "dc1"]


def test_what_a_controller_says_is_told_and_is_no_part_of_it() -> None:
    locator = Locator(controllers(0), probe=everybody, ping=says({"192.0.2.1": NEAR_BY}))
    [found] = locator.locate("a.test")
    assert (found.site, found.is_closest) == ("Near", True)
    assert found.latency_seconds is not None
    assert found.latency_seconds >= 0
    plain = DomainController("dc1.a.test", ("192.0.2.1",))
    assert found == plain
    assert hash(found) == hash(plain)


def test_without_answers_the_order_is_that_of_dns() -> None:
    """UDP may be filtered; then TCP alone decides."""
    locator = Locator(controllers(1, 0, 2), first, everybody, silence)
    found = locator.locate("a.test")
    assert hosts(found) == ["dc2", "dc1", "dc3"]
    assert {(dc.site, dc.is_closest) for dc in found} == {(None, False)}


def test_one_that_hangs_stands_after_all_that_answer() -> None:
    """It takes connections, and would cost each logon its whole time."""
    ping = says({"192.0.2.2": FAR_AWAY, "192.0.2.3": NEAR_BY})
    found = Locator(controllers(0, 1, 2), first, everybody, ping).locate("a.test")
    assert hosts(found) == ["dc2", "dc3", "dc1"]
    assert [dc.is_silent for dc in found] == [False, False, True]


def test_the_closest_go_first_within_a_priority() -> None:
    """Without records of the site, a worse priority stays a preference of the administrator."""
    far = dict.fromkeys(("192.0.2.1", "192.0.2.3"), FAR_AWAY)
    ping = says(far | dict.fromkeys(("192.0.2.2", "192.0.2.4"), NEAR_BY))
    dns = controllers(0, 0, 0, 1)
    assert hosts(Locator(dns, first, everybody, ping).locate("a.test")) == [
        *("dc2", "dc1", "dc3", "dc4"),
    ]
    assert dns.asked == [DOMAIN, NEAR]


def test_the_records_of_the_site_go_before_priorities_and_bring_new_controllers() -> None:
    dns = controllers(0, 9, sites={NEAR: [record(3, 5), record(2, 9)]})
    ping = says({"192.0.2.1": FAR_AWAY, "192.0.2.2": NEAR_BY, "192.0.2.3": NEAR_BY})
    found = Locator(dns, first, everybody, ping).locate("a.test")
    assert hosts(found) == ["dc3", "dc2", "dc1"]
    assert [dc.is_closest for dc in found] == [True, True, False]


def test_with_more_controllers_than_are_asked_those_of_the_site_are_found() -> None:
    everywhere = [SrvRecord(0, 0, 389, f"dc{n}.a.test") for n in range(10, 60)]
    addresses = {f"dc{n}.a.test": [f"192.0.2.{n}"] for n in range(10, 61)}
    dns = FixedDns(everywhere, addresses, {NEAR: [record(60)]})
    ping = says({f"192.0.2.{n}": FAR_AWAY for n in range(10, 60)} | {"192.0.2.60": NEAR_BY})
    found = Locator(dns, first, everybody, ping).locate("a.test")
    assert hosts(found)[0] == "dc60"
    assert len(found) == 17


def test_a_healthy_closest_controller_costs_one_question_to_dns() -> None:
    dns = controllers(0)
    Locator(dns, probe=everybody, ping=says({"192.0.2.1": NEAR_BY})).locate("a.test")
    assert dns.asked == [DOMAIN]


def test_a_remembered_site_is_asked_for_at_once() -> None:
    dns = controllers(0, 0, sites={NEAR: [record(2), record(3)]})
    found = Locator(dns, first, everybody, silence).locate("a.test", site="Near")
    assert hosts(found) == ["dc2", "dc3", "dc1"]
    assert dns.asked == [DOMAIN, NEAR]


def test_a_host_that_has_moved_gets_the_controllers_of_its_new_site() -> None:
    old = "_ldap._tcp.old._sites.dc._msdcs.a.test"
    dns = controllers(0, 0, 0, sites={old: [record(3), record(4)], NEAR: [record(2)]})
    moved = answer(controller_site="Old")
    ping = says({f"192.0.2.{n}": moved for n in (1, 3, 4)} | {"192.0.2.2": NEAR_BY})
    found = Locator(dns, first, everybody, ping).locate("a.test", site="Old")
    assert hosts(found) == ["dc2", "dc1", "dc3", "dc4"]


@pytest.mark.parametrize("site", ["", "a.b", "a b", "é", "x" * 64, "..", "*"])
def test_sites_that_no_record_can_have_are_not_asked_for(site: str) -> None:
    dns = controllers(0)
    said = answer(client_site=site)
    for remembered in (None, site):
        locator = Locator(dns, probe=everybody, ping=says({"192.0.2.1": said}))
        assert hosts(locator.locate("a.test", site=remembered)) == ["dc1"]
    assert set(dns.asked) == {DOMAIN}


def test_a_site_that_another_domains_controller_names_is_not_this_domains() -> None:
    """A record that is out of date leads to it; its site may have the same name, or any other."""
    dns = controllers(0, 1, sites={NEAR: [record(3)]})
    stranger = answer(domain="b.test", client_site="Near")
    ping = says({"192.0.2.1": stranger})
    assert hosts(Locator(dns, first, everybody, ping).locate("a.test")) == ["dc2"]
    assert dns.asked == [DOMAIN]


def test_of_a_hosts_addresses_a_few_are_asked_each_once() -> None:
    asked: list[str] = []

    def probe(address: str, _: int) -> bool:
        asked.append(address)
        return True

    many = [f"192.0.2.{n % 10}" for n in range(1, 40)]
    dns = FixedDns([record(1)], {"dc1.a.test": many})
    (found,) = Locator(dns, first, probe, silence).locate("a.test")
    assert found.addresses == ("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4")
    assert sorted(asked) == sorted(found.addresses)


def test_an_error_names_a_few_hosts_and_how_many_more_there_are() -> None:
    def text(size: int) -> str:
        with pytest.raises(UnreachableError) as caught:
            Locator(crowd(size), first, takes(), silence).locate("a.test")
        return str(caught.value)

    assert "more" not in text(8)
    assert "dc8.a.test (192.0.0.8) and 1 more" in text(9)
    assert "and 2 more" in text(10)


def test_dns_that_fails_for_the_site_alone_does_no_harm() -> None:
    failing = UnreachableError.of("dns-unreachable", "no answer")
    dns = controllers(0, sites={NEAR: failing})
    ping = says({"192.0.2.1": FAR_AWAY})
    assert hosts(Locator(dns, first, everybody, ping).locate("a.test")) == ["dc1"]


def test_dns_that_fails_for_one_host_loses_that_host_alone() -> None:
    failing = UnreachableError.of("dns-unreachable", "no answer")
    srv = [record(1), record(2)]
    dns = FixedDns(srv, {"dc1.a.test": failing, "dc2.a.test": ["192.0.2.2"]})
    assert hosts(Locator(dns, first, everybody, silence).locate("a.test")) == ["dc2"]
    dns = FixedDns(srv, {"dc1.a.test": failing, "dc2.a.test": failing})
    with pytest.raises(UnreachableError, match="dns-unreachable"):
        Locator(dns, first, everybody, silence).locate("a.test")


def test_a_root_target_says_that_there_is_no_service() -> None:
    with pytest.raises(UnreachableError, match="domain-not-found"):
        Locator(FixedDns([SrvRecord(0, 0, 0, ".")], {})).locate("a.test")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (READ_ONLY, "is read-only"),
        (answer(is_paused=True), "is paused"),
        (answer(domain="b.test"), "is of the domain b.test"),
        (None, "does not serve the domain"),
    ],
)
def test_controllers_that_cannot_serve(said: NetlogonAnswer | None, why: str) -> None:
    ping = says({"192.0.2.1": said, "192.0.2.2": answer(domain="A.TEST")})
    locator = Locator(controllers(0, 1), first, everybody, ping)
    assert hosts(locator.locate("a.test")) == ["dc2"]
    locator = Locator(controllers(0, 1), first, takes("192.0.2.1"), ping)
    with pytest.raises(UnreachableError, match=rf"dc1\.a\.test {why}.*dc-unsuitable"):
        locator.locate("a.test")


def test_unsuitable_and_gone_is_gone() -> None:
    locator = Locator(controllers(0), first, takes(), says({"192.0.2.1": READ_ONLY}))
    with pytest.raises(UnreachableError, match="dc-unreachable"):
        locator.locate("a.test")


def test_what_one_address_says_holds_for_the_silent_ones_of_its_host() -> None:
    dns = FixedDns(
        [record(1), record(2)],
        {
            "dc1.a.test": ["192.0.2.1", "2001:db8::1"],
            "dc2.a.test": ["192.0.2.2", "2001:db8::2"],
        },
    )
    # dc2's IPv4 address now belongs to another domain's controller.
    ping = says(
        {
            "2001:db8::1": READ_ONLY,
            "192.0.2.2": answer(domain="b.test"),
            "2001:db8::2": NEAR_BY,
        }
    )
    assert Locator(dns, first, everybody, ping).locate("a.test") == [
        DomainController("dc2.a.test", ("2001:db8::2",))
    ]


def test_a_controller_that_answers_and_refuses_is_not_alive() -> None:
    ping = says({"192.0.2.1": NEAR_BY, "192.0.2.2": FAR_AWAY})
    locator = Locator(controllers(0, 5), first, takes("192.0.2.2"), ping)
    assert hosts(locator.locate("a.test")) == ["dc2"]


def test_the_port_that_is_wanted_is_probed() -> None:
    ports: list[int] = []

    def probe(_: str, port: int) -> bool:
        ports.append(port)
        return True

    Locator(controllers(0), first, probe, silence).locate("a.test", port=636)
    assert ports == [636]


def test_spoofed_and_malformed_answers_are_as_none() -> None:
    def ping(address: str, request: bytes, /) -> Iterator[bytes]:
        message_id = message_id_of(request)
        yield datagram_of(READ_ONLY, message_id ^ 1)
        yield done(message_id ^ 1)
        yield datagram_of(READ_ONLY, message_id)[:-1]
        yield b""
        if address == "192.0.2.2":
            yield datagram_of(NEAR_BY, message_id)

    found = Locator(controllers(0, 0), first, everybody, ping).locate("a.test")
    assert [(dc.host, dc.site) for dc in found] == [("dc2.a.test", "Near"), ("dc1.a.test", None)]


def test_each_ping_has_its_own_message_id() -> None:
    seen: list[int] = []

    def ping(_: str, request: bytes, /) -> Iterator[bytes]:
        seen.append(message_id_of(request))
        return iter(())

    Locator(controllers(0, 0, 0), first, everybody, ping).locate("a.test")
    assert len(set(seen)) == 3


@pytest.mark.parametrize("way", ["udp", "tcp", "both"])
def test_the_slow_are_not_waited_for_once_there_is_a_good_one(way: str) -> None:
    """The first controller never comes back; what it does not say in time does not count."""
    over = threading.Event()

    def ping(address: str, request: bytes, /) -> Iterator[bytes]:
        if address == "192.0.2.1" and way != "tcp":
            over.wait()
        return says({"192.0.2.1": FAR_AWAY, "192.0.2.2": FAR_AWAY})(address, request)

    def probe(address: str, _: int) -> bool:
        return address != "192.0.2.1" or way == "udp" or over.wait()

    try:
        found = Locator(controllers(0, 1), first, probe, ping).locate("a.test")
    finally:
        over.set()
    assert hosts(found) == (["dc2", "dc1"] if way == "udp" else ["dc2"])


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from(["near", "far", "silent", "read-only", "dead"]),
        ),
        min_size=1,
        max_size=6,
    ),
    st.randoms(use_true_random=False),
)
def test_what_is_found_is_fit_and_in_order(
    domain: list[tuple[int, str]], chance: random.Random
) -> None:
    states = {f"192.0.2.{n}": state for n, (_, state) in enumerate(domain, 1)}
    answers = {"near": NEAR_BY, "far": FAR_AWAY, "read-only": READ_ONLY}
    ping = says({a: answers[state] for a, state in states.items() if state in answers})
    alive = takes(*(a for a, state in states.items() if state != "dead"))
    dns = controllers(*(priority for priority, _ in domain))
    try:
        found = Locator(dns, chance.randint, alive, ping).locate("a.test")
    except UnreachableError as error:
        expected = "dc-unsuitable" if "read-only" in states.values() else "dc-unreachable"
        assert error.code == expected
        assert set(states.values()) <= {"read-only", "dead"}
        return
    places = [domain[int(dc.host[2]) - 1] for dc in found]
    assert Counter(places) == Counter(p for p in domain if p[1] not in {"read-only", "dead"})
    assert places == sorted(places, key=lambda p: (p[1] == "silent", p[0], p[1] != "near"))


def test_a_controller_that_stands_in_for_a_site_without_one_is_closest() -> None:
    stand_in = answer(flags=WRITABLE | ControllerFlag.CLOSEST)
    ping = says({"192.0.2.1": FAR_AWAY, "192.0.2.2": stand_in})
    assert hosts(Locator(controllers(0, 0), first, everybody, ping).locate("a.test"))[0] == "dc2"


def crowd(size: int) -> FixedDns:
    """DNS with so many controllers of one priority, dc1.a.test at 192.0.0.1 and so on."""
    numbers = range(1, size + 1)
    addresses = {f"dc{n}.a.test": [f"192.0.{n >> 8}.{n & 255}"] for n in numbers}
    return FixedDns([record(n) for n in numbers], addresses)


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 60), data=st.data())
def test_the_only_controller_that_answers_is_found_among_any_number(
    size: int, data: st.DataObject
) -> None:
    reachable = data.draw(st.integers(1, size))
    address = f"192.0.{reachable >> 8}.{reachable & 255}"
    [found] = Locator(crowd(size), probe=takes(address), ping=silence).locate("a.test")
    assert found == DomainController(f"dc{reachable}.a.test", (address,))


def test_no_batch_is_asked_after_the_one_that_has_a_controller() -> None:
    asked: list[str] = []

    def probe(address: str, _: int) -> bool:
        asked.append(address)
        return address == "192.0.0.20"

    Locator(crowd(60), first, probe, silence).locate("a.test")
    assert len(asked) == 32


def test_when_the_time_is_over_it_says_how_many_were_not_asked() -> None:
    clock = iter(range(0, 1000, 10))
    locator = Locator(crowd(60), probe=takes(), ping=silence, now=lambda: next(clock))
    with pytest.raises(UnreachableError) as caught:
        locator.locate("a.test", seconds=15)
    text = str(caught.value)
    assert "and 24 more; the time was over before 28 more were asked" in text
    assert '[domains."a.test"]' in text


def prefer(*hosts_first: str, site: str | None = None) -> dict[str, ControllerPreference]:
    return {"a.test": ControllerPreference(tuple(f"{h}.a.test" for h in hosts_first), site)}


def test_preferred_controllers_are_asked_first_and_dns_not_at_all() -> None:
    dns = controllers(0, 0, 0, 0)
    locator = Locator(dns, first, everybody, silence, prefer("dc4", "dc2"))
    assert hosts(locator.locate("A.TEST.")) == ["dc4", "dc2"]
    assert dns.asked == []


def test_where_no_preferred_controller_serves_the_others_are_asked() -> None:
    locator = Locator(
        controllers(0, 0), first, takes("192.0.2.1", "192.0.2.2"), silence, prefer("dc4", "dc9")
    )
    assert hosts(locator.locate("a.test")) == ["dc1", "dc2"]


def test_preferred_controllers_need_no_record_of_the_domain() -> None:
    dns = FixedDns([], {"dc4.a.test": ["192.0.2.4"]})
    locator = Locator(dns, probe=everybody, ping=silence, preferences=prefer("dc4"))
    assert hosts(locator.locate("a.test")) == hosts(locator.candidates("a.test")) == ["dc4"]
    dead = Locator(dns, probe=takes(), ping=silence, preferences=prefer("dc4"))
    with pytest.raises(UnreachableError, match=r"dc4\.a\.test.*dc-unreachable"):
        dead.locate("a.test")


def test_a_configured_site_counts_whatever_site_the_domain_finds() -> None:
    dns = controllers(0, 0, sites={NEAR: [record(3)]})
    ping = says({f"192.0.2.{n}": FAR_AWAY for n in range(1, 4)})
    near = Locator(dns, first, everybody, ping, prefer(site="Near"))
    assert hosts(near.locate("a.test", site="Elsewhere")) == ["dc3"]
    assert dns.asked == [NEAR]
    away = Locator(dns, first, takes("192.0.2.1"), ping, prefer(site="Near"))
    assert hosts(away.locate("a.test")) == ["dc1"]


def test_the_preference_for_one_domain_is_none_for_another() -> None:
    locator = Locator(
        controllers(0), first, everybody, silence, {"b.test": ControllerPreference(("x.b.test",))}
    )
    assert hosts(locator.locate("a.test")) == ["dc1"]
