"""What one lease's KDC answers, with tickets of services that are made up."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.agent.audit import AuditLog
from credspec.agent.broker.decisions import Decisions
from credspec.agent.broker.lease_kdc import Lease, LeaseKdc
from credspec.agent.identities.identity import IdentityName
from credspec.agent.leases.background import BackgroundTasks
from credspec.agent.leases.record import LeaseRecord
from credspec.agent.leases.service_audit import ServiceAudit
from credspec.config.policy import Policy
from credspec.errors import CredspecError, NotPermittedError, UnreachableError
from credspec.kerberos.kdc.encryption import EncryptionKey
from credspec.kerberos.kdc.messages import (
    TICKET,
    EncryptedData,
    TicketData,
    encode_tagged,
    name_of,
    string,
)
from credspec.kerberos.kdc.refusals import (
    KdcErrorCode,
)
from credspec.kerberos.kdc_errors import ServiceUnknownError
from credspec.kerberos.service_credentials import ServiceTicket
from credspec.kerberos.service_names import ServiceName, ServicePattern
from support.domain.decoy_client import NOW, REALM, Client, error_of, parts_of

KEY = EncryptionKey(18, bytes(range(32)))
LDAP = ("ldap", "dc1.example.test")
OTHER = "OTHER.TEST"


@dataclass
class Tickets:
    """Gives tickets of realm `realm`, or fails."""

    realm: str = REALM
    error: CredspecError | None = None
    kept: bool = False
    enctype: int = 18
    hang: bool = False
    waiting: int = 0
    most_waiting: int = 0
    fresh_hosts: tuple[str, ...] = ()
    late: timedelta = timedelta()
    asked: list[tuple[str, timedelta]] = field(default_factory=list)

    async def get(
        self, name: IdentityName, holder: str, service: ServiceName, life: timedelta
    ) -> ServiceTicket:
        del name, holder
        self.asked.append((f"{service.spn}@{service.realm}", life))
        if self.hang:
            self.waiting += 1
            self.most_waiting = max(self.most_waiting, self.waiting)
            try:
                await asyncio.Event().wait()
            finally:
                self.waiting -= 1
        if self.error is not None:
            raise self.error
        return self._ticket(service, life)

    def fresh(
        self, name: IdentityName, service: ServiceName, life: timedelta
    ) -> ServiceTicket | None:
        del name
        return self._ticket(service, life) if service.host in self.fresh_hosts else None

    def held(
        self, name: IdentityName, service: ServiceName, life: timedelta
    ) -> ServiceTicket | None:
        del name
        return self._ticket(service, life) if self.kept else None

    def _ticket(self, service: ServiceName, life: timedelta) -> ServiceTicket:
        data = TicketData(
            tkt_vno=5,
            realm=string(self.realm),
            sname=name_of(1, service.spn.split("/")),
            enc_part=EncryptedData(etype=18, kvno=1, cipher=bytes(100)),
        )
        return ServiceTicket(
            service=service,
            client=f"WebApp01$@{REALM}",
            realm=self.realm,
            authenticated=NOW,
            start=NOW,
            end=NOW + self.late + life,
            flags=0,
            enctype=self.enctype,
            key=bytes(32),
            ticket=encode_tagged(TICKET, data),
        )


class Bench:
    """A lease's KDC, and what it wrote."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record = LeaseRecord(
            lease_id="0" * 32,
            container="c1",
            runtime_state="/run/c1",
            uid=0,
            gid=0,
            domain="example.test",
            default_account="WebApp01",
            accounts=("WebApp01",),
            created=NOW,
            tickets="broker",
        )
        self.tickets = Tickets()
        self.policy = Policy()
        self.times = count(0.0, 0.5)
        self.realms = frozenset({REALM})
        self.identities = (IdentityName("webapp01", "example.test"),)
        self.has_ended = False
        self.audit = ServiceAudit(AuditLog(path))
        decisions = Decisions(self.audit, BackgroundTasks())
        self.kdc = LeaseKdc(
            *(KEY, self.lease, self.tickets, decisions),
            policy=lambda: self.policy,
            now=lambda: NOW,
            clock=lambda: next(self.times),
            seconds=0.1,
        )
        self.client = Client.make(KEY)

    def lease(self) -> Lease | None:
        if self.has_ended:
            return None
        return Lease(self.record, self.identities, self.realms)

    def asking(self, *services: str) -> None:
        self.record = replace(self.record, services=services)

    def allowing(self, *patterns: str) -> None:
        found = tuple(p for p in map(ServicePattern.parse, patterns) if p is not None)
        assert len(found) == len(patterns)
        self.policy = Policy(services={"webapp01@*": found})

    async def granted(self, *parts: str) -> tuple[str, ...]:
        """Return the name in the reply to a request."""
        _, part = self.client.reply(await self.kdc.answer(self.client.request(*parts)))
        return parts_of(part.sname)

    async def refused(self, *parts: str) -> int:
        return error_of(await self.kdc.answer(self.client.request(*parts)))

    def lines(self) -> list[dict[str, Any]]:
        text = self.path.read_text() if self.path.exists() else ""
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "audit.jsonl")


async def test_without_limits_every_service_is_granted(bench: Bench) -> None:
    assert await bench.granted(*LDAP) == LDAP
    [line] = bench.lines()
    assert line["decision"] == "granted"
    assert line["event"] == "service-ticket-granted"
    assert (line["service"], line["realm"], line["via"]) == ("/".join(LDAP), REALM, "kdc")
    assert "pattern" not in line


@pytest.mark.parametrize(
    ("asked", "allowed", "is_granted"),
    [
        (("ldap/*.example.test",), None, True),
        (("LDAP/DC1.example.test",), None, True),
        (("cifs/*.example.test",), None, False),
        ((), ("ldap/dc1.example.test",), True),
        ((), ("ldap/dc2.example.test",), False),
        (("ldap/*.example.test",), ("cifs/*.example.test",), False),
        (("ldap/*.example.test",), ("ldap/dc1.example.test@EXAMPLE.TEST",), True),
        (("ldap/dc1.example.test:389",), None, False),
        (("ldap/dc1.example.test@OTHER.TEST",), None, False),
    ],
)
async def test_both_the_lease_and_the_policy_must_cover_it(
    bench: Bench, asked: tuple[str, ...], allowed: tuple[str, ...] | None, is_granted: bool
) -> None:
    bench.asking(*asked)
    if allowed is not None:
        bench.allowing(*allowed)
    if is_granted:
        assert await bench.granted(*LDAP) == LDAP
    else:
        assert await bench.refused(*LDAP) == KdcErrorCode.POLICY
        assert bench.lines()[0]["errors"] == ["broker-service"]
        assert bench.audit.denied_by_lease[bench.record.lease_id] == 1


@pytest.mark.parametrize(
    ("asked", "allowed", "pattern"),
    [
        (("cifs/*", "ldap/*.example.test"), None, "ldap/*.example.test"),
        ((), ("ldap/dc1.example.test",), "ldap/dc1.example.test"),
        (("ldap/*.example.test",), ("ldap/dc1.example.test",), "ldap/*.example.test"),
    ],
)
async def test_the_line_of_a_grant_says_what_allowed_it(
    bench: Bench, asked: tuple[str, ...], allowed: tuple[str, ...] | None, pattern: str
) -> None:
    bench.asking(*asked)
    if allowed is not None:
        bench.allowing(*allowed)
    await bench.granted(*LDAP)
    assert [line["pattern"] for line in bench.lines()] == [pattern]


async def test_what_is_suppressed_of_a_minute_is_reported_with_its_number(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    """A container that asks for much fills no log, and hides nothing by it."""
    now = 0.0
    denials = bench.kdc._decisions._denials
    denials._clock = lambda: now
    bench.asking("ldap/dc1.example.test")
    for number in range(9):
        await bench.refused("HTTP", f"host{number}.example.test")
    said = capsys.readouterr().err.splitlines()
    assert 0 < len(said) < 9
    assert "suppressed" not in "".join(said)
    now = 61.0
    await bench.refused("HTTP", "later.example.test")
    summary, last = capsys.readouterr().err.splitlines()
    assert f"suppressed={9 - len(said)}" in summary
    assert f"lease='{bench.record.lease_id}'" in summary
    assert "later.example.test" in last


async def test_the_domain_is_not_asked_for_what_is_not_allowed_anyway(bench: Bench) -> None:
    """A container that was taken over would learn what there is, and load the domain."""
    bench.asking("cifs/*.example.test")
    assert await bench.refused(*LDAP) == KdcErrorCode.POLICY
    bench.asking()
    bench.allowing("cifs/*.example.test")
    assert await bench.refused(*LDAP) == KdcErrorCode.POLICY
    assert bench.tickets.asked == []


@pytest.mark.parametrize(
    "parts",
    [
        ("krbtgt", REALM),
        ("krbtgt", OTHER),
        ("KRBTGT", "A", "B"),
        ("krbtgt",),
        ("kadmin", "changepw"),
        ("WebApp01$",),
        ("ldap", "dc1.example.test", "example.test"),
        ("ldap", "dc1 example"),
    ],
)
async def test_what_is_no_plain_service_is_refused(bench: Bench, parts: tuple[str, ...]) -> None:
    assert await bench.refused(*parts) == KdcErrorCode.POLICY
    assert bench.tickets.asked == []
    assert bench.lines()[0]["decision"] == "denied"


async def test_a_service_of_another_realm(bench: Bench) -> None:
    """First a decoy for that realm, then the ticket, with a line."""
    bench.realms |= {OTHER}
    bench.asking(f"HTTP/*.other.test@{OTHER}")
    bench.tickets.realm = OTHER
    assert await bench.granted("HTTP", "x.other.test") == ("krbtgt", OTHER)
    assert bench.tickets.asked[-1][0] == "HTTP/x.other.test@None"
    assert bench.lines() == []
    assert await bench.granted("krbtgt", OTHER) == ("krbtgt", OTHER)
    bench.client.realm = bench.client.target = OTHER
    assert await bench.granted("HTTP", "x.other.test") == ("HTTP", "x.other.test")
    assert bench.tickets.asked[-1][0] == f"HTTP/x.other.test@{OTHER}"
    [line] = bench.lines()
    assert line["realm"] == OTHER


@pytest.mark.parametrize("realm", [OTHER, OTHER.lower(), OTHER.title()])
async def test_realms_are_the_same_in_any_letter_case(bench: Bench, realm: str) -> None:
    """Clients take them from host names; Active Directory's are in upper case."""
    bench.realms |= {OTHER}
    assert await bench.granted("krbtgt", realm) == ("krbtgt", OTHER)


async def test_an_account_that_the_container_has_no_more(bench: Bench) -> None:
    """Its programs still hold decoys of it, which open nothing."""
    for identities in ((), (IdentityName("other", "example.test"),)):
        bench.identities = identities
        assert await bench.refused(*LDAP) == KdcErrorCode.POLICY
    assert bench.tickets.asked == []
    assert bench.lines()[0]["decision"] == "denied"


async def test_a_realm_that_no_pattern_names(bench: Bench) -> None:
    bench.tickets.realm = OTHER
    assert await bench.refused("HTTP", "x.other.test") == KdcErrorCode.POLICY
    bench.realms |= {OTHER}
    bench.asking("HTTP/*.other.test@THIRD.TEST")
    assert await bench.refused("HTTP", "x.other.test") == KdcErrorCode.POLICY


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ServiceUnknownError.of("kdc-service-unknown", "no"), KdcErrorCode.UNKNOWN_SERVICE),
        (UnreachableError.of("kdc-unreachable", "no"), KdcErrorCode.SERVICE_UNAVAILABLE),
        (NotPermittedError.of("kdc-policy", "no"), KdcErrorCode.POLICY),
        (CredspecError.of("kerberos", "no"), KdcErrorCode.GENERIC),
    ],
)
async def test_errors_of_the_domain(bench: Bench, error: CredspecError, code: KdcErrorCode) -> None:
    bench.tickets.error = error
    assert await bench.refused(*LDAP) == code
    assert bench.lines()[0]["decision"] == "failed"


async def test_for_how_long_clients_waited(bench: Bench) -> None:
    """Only for what they got, by where it came from; each look at the clock is half a second."""
    await bench.granted(*LDAP)
    bench.tickets.fresh_hosts = ("dc1.example.test",)
    await bench.granted(*LDAP)
    await bench.granted(*LDAP)
    bench.tickets.error = UnreachableError.of("kdc-unreachable", "no")
    await bench.refused("HTTP", "x")
    found = {
        (each.labels["source"], each.suffix): each.value
        for each in bench.audit.seconds.samples()
        if each.suffix != "_bucket"
    }
    assert found == {
        ("domain", "_count"): 1,
        ("domain", "_sum"): 0.5,
        ("memory", "_count"): 2,
        ("memory", "_sum"): 1.0,
    }


@pytest.mark.parametrize("hang", [False, True])
async def test_an_outage_of_the_domain(bench: Bench, hang: bool) -> None:
    """What is held is given; without it, there is an answer all the same."""
    bench.tickets.hang = hang
    bench.tickets.error = UnreachableError.of("kdc-unreachable", "no")
    assert await bench.refused(*LDAP) == KdcErrorCode.SERVICE_UNAVAILABLE
    bench.tickets.kept = True
    assert await bench.granted(*LDAP) == LDAP


async def test_what_is_held_waits_for_no_domain(bench: Bench) -> None:
    """However many others of the same container do."""
    bench.tickets.hang = True
    bench.tickets.fresh_hosts = ("dc1.example.test",)
    waiting = [asyncio.create_task(bench.refused("HTTP", f"host{n}")) for n in range(20)]
    await asyncio.sleep(0)
    assert await bench.granted(*LDAP) == LDAP
    assert set(await asyncio.gather(*waiting)) == {KdcErrorCode.SERVICE_UNAVAILABLE}
    assert bench.tickets.most_waiting == 2


async def test_the_life_of_a_ticket(bench: Bench) -> None:
    await bench.granted(*LDAP)
    await bench.granted("HTTP", "x")
    bench.client.till = NOW + timedelta(seconds=90)
    await bench.granted("HTTP", "y")
    # To the second what it would be anyway.
    bench.client.till = NOW + timedelta(minutes=10)
    await bench.granted("HTTP", "exact")
    # Without an end, as some clients ask.
    bench.client.till = datetime(1970, 1, 1, tzinfo=NOW.tzinfo)
    await bench.granted("HTTP", "z")
    lives = [life.total_seconds() for _, life in bench.tickets.asked]
    assert lives == [3600, 600, 75, 600, 600]


@pytest.mark.parametrize(
    ("till", "end"),
    [
        # Some clients take what ends later than they asked for as forged.
        (NOW + timedelta(seconds=90), NOW + timedelta(seconds=90)),
        (NOW + timedelta(days=1), NOW + timedelta(hours=1, seconds=60)),
        # These ask for no end.
        (NOW, NOW + timedelta(hours=1, seconds=60)),
        (datetime(1970, 1, 1, tzinfo=NOW.tzinfo), NOW + timedelta(hours=1, seconds=60)),
    ],
)
async def test_a_ticket_that_came_late_ends_when_it_was_to(
    bench: Bench, till: datetime, end: datetime
) -> None:
    bench.tickets.late = timedelta(seconds=60)
    bench.client.till = till
    _, part = bench.client.reply(await bench.kdc.answer(bench.client.request(*LDAP)))
    assert part.endtime.as_datetime() == end


@given(wanted=st.lists(st.integers(1, 40_000), min_size=1, max_size=40))
async def test_clients_choose_among_few_lives(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[int]
) -> None:
    """What they get ends when they asked for, or earlier, but not before half of that."""
    bench = Bench(tmp_path_factory.mktemp("few") / "audit.jsonl")
    for seconds in wanted:
        bench.client.till = NOW + timedelta(seconds=seconds)
        _, part = bench.client.reply(await bench.kdc.answer(bench.client.request(*LDAP)))
        left = part.endtime.as_datetime() - NOW
        assert min(timedelta(seconds=seconds / 2 - 1), timedelta(hours=1)) <= left
        assert left <= timedelta(seconds=seconds)
    assert len({life for _, life in bench.tickets.asked}) <= 12


async def test_a_session_key_that_the_client_does_not_know(bench: Bench) -> None:
    bench.tickets.enctype = 23
    assert await bench.refused(*LDAP) == KdcErrorCode.ETYPE_UNSUPPORTED


async def test_a_lease_that_has_ended(bench: Bench) -> None:
    bench.has_ended = True
    assert await bench.refused(*LDAP) == KdcErrorCode.POLICY
    assert error_of(await bench.kdc.answer(b"")) == KdcErrorCode.GENERIC


async def test_what_cannot_be_written_down_is_not_given(bench: Bench) -> None:
    bench.path.mkdir()
    assert await bench.refused(*LDAP) == KdcErrorCode.POLICY


async def test_refused_requests_are_written_down_once(bench: Bench) -> None:
    stranger = Client.make(EncryptionKey.random())
    for _ in range(5):
        reply = await bench.kdc.answer(stranger.request(*LDAP))
        assert error_of(reply) == KdcErrorCode.BAD_INTEGRITY
    [line] = bench.lines()
    assert (line["errors"], line["accounts"]) == (["broker-request"], [])
    # No sign of an intrusion by itself: some clients ask for what no broker gives.
    assert bench.audit.counts == {"refused": 5}
    assert bench.audit.denied_by_lease == {}


async def test_equal_decisions_at_once_have_one_line(bench: Bench) -> None:
    """None is given before the line is there."""
    bench.tickets.fresh_hosts = ("dc1.example.test",)
    requests = [bench.client.request(*LDAP) for _ in range(20)]
    replies = await asyncio.gather(*map(bench.kdc.answer, requests))
    assert {parts_of(bench.client.reply(each)[1].sname) for each in replies[-1:]} == {LDAP}
    assert len(bench.lines()) == 1
    assert bench.audit.counts == {"granted": 20}


async def test_equal_decisions_at_once_that_cannot_be_written(bench: Bench) -> None:
    bench.tickets.fresh_hosts = ("dc1.example.test",)
    bench.path.mkdir()
    requests = [bench.client.request(*LDAP) for _ in range(5)]
    replies = await asyncio.gather(*map(bench.kdc.answer, requests))
    assert {error_of(each) for each in replies} == {KdcErrorCode.POLICY}
    assert bench.audit.counts == {}
    bench.path.rmdir()
    assert await bench.granted(*LDAP) == LDAP


async def test_each_minute_has_the_number_of_equal_decisions(bench: Bench) -> None:
    """A timer ends it, which begins with the first decision of a minute."""
    decisions = bench.kdc._decisions
    for minute in range(2):
        assert decisions._timer is None
        for _ in range(3):
            await bench.granted("HTTP", "www.example.test")
        timer = decisions._timer
        assert timer is not None
        timer._run()  # as if the minute had passed
        timer.cancel()
        await asyncio.gather(*decisions._background.tasks)
        first, counted = bench.lines()[2 * minute :]
        assert (first["decision"], counted["decision"]) == ("granted", "granted")
        assert (first.get("count"), counted["count"]) == (None, 2)
        assert decisions._joined == decisions._lines == {}
    decisions.flush()
    assert len(bench.lines()) == 4


async def test_names_that_a_container_invents_do_not_fill_the_log(bench: Bench) -> None:
    bench.asking("ldap/dc1.example.test")
    for number in range(250):
        await bench.refused("HTTP", f"host{number}.example.test")
    assert len(bench.lines()) == 201
    assert bench.audit.counts["denied"] == 250


async def test_names_in_another_letter_case_are_the_same_decision(bench: Bench) -> None:
    bench.asking("ldap/dc1.example.test")
    for parts in (("HTTP", "www.example.test"), ("http", "WWW.example.test")):
        assert await bench.refused(*parts) == KdcErrorCode.POLICY
    assert len(bench.lines()) == 1
    assert bench.audit.counts == {"denied": 2}


async def test_what_has_a_line_is_counted_by_its_name_whatever_else_is_asked(bench: Bench) -> None:
    """Or a container would hide what it asks for behind names that it invents."""
    bench.asking("ldap/dc1.example.test")
    for number in [0, 0, *range(250), 0, 0]:
        await bench.refused("HTTP", f"host{number}.example.test")
    decisions = bench.kdc._decisions
    decisions.flush()
    await asyncio.gather(*decisions._background.tasks)
    counts = {line["service"]: line["count"] for line in bench.lines() if "count" in line}
    assert counts.pop("HTTP/host0.example.test") == 4
    assert list(counts.values()) == [49], "the other names, in one line"
    if decisions._timer is not None:
        decisions._timer.cancel()


async def test_a_minute_that_ends_while_a_line_is_written_keeps_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    decisions, lease = bench.kdc._decisions, bench.record.lease_id
    gate = asyncio.Event()
    write = bench.audit.granted

    async def waits(*arguments: Any) -> None:
        await gate.wait()
        await write(*arguments)

    monkeypatch.setattr(bench.audit, "granted", waits)
    waiting = [asyncio.create_task(bench.granted(*LDAP)) for _ in range(3)]
    async with asyncio.timeout(60):
        while not decisions._joined:
            await asyncio.sleep(0)
    decisions.flush()
    assert decisions._lines == {lease: 1}
    gate.set()
    await asyncio.gather(*waiting)
    assert len(bench.lines()) == 1
    assert bench.audit.counts == {"granted": 3}
    if decisions._timer is not None:
        decisions._timer.cancel()


def test_a_datagram_names_the_service(bench: Bench) -> None:
    assert error_of(bench.kdc.too_big(bench.client.request(*LDAP))) == 52
    assert error_of(bench.kdc.too_big(b"anything")) == 52
