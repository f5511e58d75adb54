"""Name servers that are silent, slow, ignorant and sound; all of them are simulated."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credspec.directory import dns_resolver
from credspec.directory.dns_resolver import DnsResolver, _Outcome, _Race
from credspec.errors import UnreachableError

Answers = Sequence[object] | str


def asks(found: Answers, seconds: float, asked: list[int], number: int) -> Callable[[], Answers]:
    def ask() -> Answers:
        asked.append(number)
        time.sleep(seconds)
        return found

    return ask


def race(*servers: tuple[Answers, float], seconds: float = 5) -> tuple[_Outcome | None, list[int]]:
    """Return what counts of servers that answer after some time, and which were asked."""
    asked: list[int] = []
    questions = [asks(found, delay, asked, n) for n, (found, delay) in enumerate(servers)]
    return _Race(questions, seconds).run(), asked  # type: ignore[arg-type]


HERE, NOWHERE, FAILED, SILENT = ["record"], (), "NoNameservers", 60.0


def test_the_first_that_answers_is_the_only_one_asked() -> None:
    assert race((HERE, 0), (HERE, 0)) == (_Outcome(0, HERE), [0])


def test_one_that_fails_costs_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # Even one head start would be more than all the time there is.
    monkeypatch.setattr(dns_resolver, "_HEAD_START_SECONDS", 1000.0)
    found = race((FAILED, 0), (FAILED, 0), (FAILED, 0), (HERE, 0), seconds=100)
    assert found[0] == _Outcome(3, HERE)


def test_silent_ones_cost_their_head_start() -> None:
    assert race((HERE, SILENT), (HERE, SILENT), (HERE, 0), seconds=50)[0] == _Outcome(2, HERE)


def test_no_such_name_counts_only_from_the_first_that_may_know() -> None:
    assert race((HERE, 0.6), (NOWHERE, 0))[0] == _Outcome(0, HERE)
    assert race((NOWHERE, 0), (HERE, 0))[0] == _Outcome(0, NOWHERE)
    assert race((FAILED, 0), (NOWHERE, 0))[0] == _Outcome(1, NOWHERE)
    assert race((HERE, SILENT), (NOWHERE, 0))[0] == _Outcome(1, NOWHERE)


def test_nobody_answers() -> None:
    assert race((HERE, SILENT), (HERE, SILENT), seconds=0.3)[0] is None
    assert race((FAILED, 0), (FAILED, 0))[0] == _Outcome(0, FAILED)


KINDS = st.sampled_from([(HERE, 0.0), (NOWHERE, 0.0), (FAILED, 0.0), (HERE, SILENT)])


@settings(max_examples=20, deadline=None)
@given(st.lists(KINDS, min_size=1, max_size=3))
def test_what_one_sound_server_knows_is_found_unless_one_before_it_denies_it(
    servers: list[tuple[Answers, float]],
) -> None:
    outcome, _ = race(*servers, seconds=3)
    sound = [(n, s[0]) for n, s in enumerate(servers) if s[1] == 0 and s[0] != FAILED]
    if not sound:
        assert outcome is None or outcome.found == FAILED
        return
    assert outcome is not None
    number, first = sound[0]
    # With all before it silent, a later one that knows the name may win.
    assert outcome == _Outcome(number, first) or outcome.found == HERE


def records(query: dns.message.Message) -> dns.message.Message | None:
    """Know hosts with an address of one kind, and never answer for the other kind of the first."""
    question = query.question[0]
    name, kind = question.name.to_text(), question.rdtype.name
    answer = dns.message.make_response(query)
    if name == "dc6.a.test.":
        if kind == "AAAA":
            answer.answer.append(dns.rrset.from_text(name, 60, "IN", "AAAA", "2001:db8::1"))
    elif name != "dc1.a.test.":
        answer.set_rcode(dns.rcode.NXDOMAIN)
    elif kind == "A":
        answer.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "192.0.2.1"))
    else:
        return None
    return dns.message.from_wire(answer.to_wire())


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> DnsResolver:
    """A resolver whose datagrams are simulated."""

    def udp(query: dns.message.Message, *_: object, timeout: float, **__: object) -> object:
        answer = records(query)
        if answer is None:
            time.sleep(timeout)
            raise dns.exception.Timeout
        return answer

    monkeypatch.setattr(dns.query, "udp", udp)
    return DnsResolver(60, nameserver="192.0.2.53")


def test_addresses_of_one_kind_are_enough(resolver: DnsResolver) -> None:
    assert resolver.addresses("dc1.a.test") == ["192.0.2.1"]
    assert resolver.addresses("dc2.a.test") == []


def test_a_host_may_have_addresses_of_the_newer_kind_only(resolver: DnsResolver) -> None:
    assert resolver.addresses("dc6.a.test") == ["2001:db8::1"]


def test_the_name_server_that_answered_last_is_asked_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A silent one costs its head start once, not with each question."""
    asked: list[str] = []

    def udp(query: dns.message.Message, where: str, *_: object, **__: object) -> object:
        asked.append(where)
        if where == "192.0.2.1":
            raise OSError
        return records(query)

    monkeypatch.setattr(dns.query, "udp", udp)
    resolver = DnsResolver(60)
    monkeypatch.setattr(resolver, "nameservers", lambda: ["192.0.2.1", "192.0.2.2"])
    assert resolver.srv("_ldap._tcp.dc2.a.test") == []
    assert (asked[0], asked[-1]) == ("192.0.2.1", "192.0.2.2")
    asked.clear()
    assert resolver.srv("_ldap._tcp.dc2.a.test") == []
    assert asked == ["192.0.2.2"]


def test_without_an_answer_the_name_servers_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> object:
        raise OSError

    monkeypatch.setattr(dns.query, "udp", refuse)
    with pytest.raises(UnreachableError, match=r"192\.0\.2\.53.*dns-unreachable"):
        DnsResolver(0.5, nameserver="192.0.2.53").srv("_ldap._tcp.a.test")


def test_other_packages_are_not_looked_for() -> None:
    script = (
        "import sys; from credspec.directory.dns_resolver import load_dnspython; load_dnspython()\n"
        "names = ('importlib.metadata', 'zipfile', 'email', 'idna')\n"
        "print([n for n in names if n in sys.modules], sys.modules['dns.resolver'].__name__)"
    )
    command = [sys.executable, "-c", script]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown == "[] dns.resolver\n"
