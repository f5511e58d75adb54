"""Identities with a scripted session: counts, single flight, refresh, failure. No network."""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, cast

import pytest

from credspec.agent.identities.domains import _LINGER_SECONDS
from credspec.agent.identities.identities import Identities
from credspec.agent.identities.identity import Identity, IdentityName
from credspec.directory.domain import DomainFacts
from credspec.directory.locator import DomainController
from credspec.errors import (
    CredspecError,
    NotFoundError,
    NotPermittedError,
    TooManyRequestsError,
    UnreachableError,
)
from credspec.kerberos.tickets import Ticket
from credspec.providers.provider import PluginSource
from credspec.session.domain_session import Acquisition

START = datetime(2026, 1, 1, tzinfo=UTC)
NAME = IdentityName("webapp01", "example.test")


class VirtualClock:
    """Time that moves only when somebody sleeps, and only a few times."""

    def __init__(self, moves: int) -> None:
        self.now = START
        self.moves = moves
        self.sleeps: list[float] = []
        self.renewed_at: list[datetime] = []

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        if len(self.sleeps) > self.moves:
            await asyncio.Event().wait()  # enough seen
        await asyncio.sleep(0.001)
        self.now += timedelta(seconds=seconds)


class ScriptedSession:
    """Stands for a domain: each acquisition gives a ticket of ten hours, or the next failure."""

    domain = "example.test"
    controllers = ()
    controller = None
    latency = None

    def __init__(self, clock: VirtualClock, failures: dict[int, CredspecError]) -> None:
        self.clock, self.failures, self.calls = clock, failures, 0
        self.forgotten = 0

    def acquire(self, account: str) -> Acquisition:
        self.calls += 1
        if self.calls in self.failures:
            raise self.failures[self.calls]
        ticket = Ticket(
            f"{account}$@EXAMPLE.TEST",
            self.clock.now,
            self.clock.now + timedelta(hours=10),
            18,
            f"ticket {self.calls}".encode(),
        )
        return Acquisition(f"{account}$", ticket, self.clock.now + timedelta(days=30))

    def forget_logon(self) -> None:
        self.forgotten += 1

    def close(self) -> None:
        pass


def make(failures: dict[int, CredspecError] | None = None, *, moves: int = 6):
    clock = VirtualClock(moves)
    session = ScriptedSession(clock, failures or {})
    renewed: list[bytes] = []
    renewed_at: list[datetime] = clock.renewed_at

    async def note(identity: Identity) -> None:
        assert identity.ticket is not None
        renewed.append(identity.ticket.ccache)
        renewed_at.append(clock.now)

    identities = Identities(
        lambda _domain, _source: session,
        note,
        now=lambda: clock.now,
        sleep=clock.sleep,
        spread=lambda low, high: (low + high) / 2,
    )
    return identities, session, clock, renewed


async def until(is_so: Callable[[], object]) -> None:
    """Let the other tasks go on until it is so; a defect fails here, long before the time-out."""
    async with asyncio.timeout(60):
        while not is_so():
            await asyncio.sleep(0.001)


class Timers:
    """Stands for the loop's timers of a minute, which a test lets go off when it likes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[Callable[[], object]] = []
        loop = asyncio.get_running_loop()
        real = loop.call_later

        def call_later(delay: float, callback: Callable[..., object], *rest: Any, **more: Any):
            if delay != _LINGER_SECONDS:
                return real(delay, callback, *rest, **more)
            return self.calls.append(partial(callback, *rest))

        monkeypatch.setattr(loop, "call_later", call_later)

    def go_off(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


def down() -> CredspecError:
    return UnreachableError.of("dc-unreachable", "down")


async def test_many_at_once_ask_once() -> None:
    identities, session, _, _ = make(moves=0)
    held = await asyncio.gather(*(identities.hold(NAME, f"lease{n}") for n in range(50)))
    assert session.calls == identities.acquisitions == 1
    assert len({id(i) for i in held}) == 1
    assert len(held[0].holders) == 50
    await identities.close()


async def test_a_domain_that_hangs_holds_up_no_other() -> None:
    clock = VirtualClock(0)
    answered = threading.Event()

    class Hanging(ScriptedSession):
        def acquire(self, account: str) -> Acquisition:
            answered.wait(60)
            return super().acquire(account)

    sessions = {"example.test": ScriptedSession(clock, {}), "hangs.test": Hanging(clock, {})}

    async def note(_: Identity) -> None:
        pass

    identities = Identities(
        lambda domain, _: sessions[domain],
        note,
        now=lambda: clock.now,
        sleep=clock.sleep,
        spread=min,
    )
    # More than a domain has threads.
    waiting = [
        asyncio.create_task(identities.hold(IdentityName(f"a{n}", "hangs.test"), f"lease{n}"))
        for n in range(20)
    ]
    await identities.hold(NAME, "lease")
    assert not any(task.done() for task in waiting)
    answered.set()
    await asyncio.gather(*waiting)
    await identities.close()


async def test_a_defect_is_told_as_such_and_the_identity_is_tried_again() -> None:
    defect = cast("CredspecError", ZeroDivisionError("secret"))
    identities, session, _, renewed = make({2: defect}, moves=2000)
    identity = await identities.hold(NAME, "lease")
    await until(lambda: renewed)
    assert session.calls >= 3
    assert identities.failures == 1
    assert identity.last_error is None
    await identities.close()


async def test_a_failure_reaches_all_and_leaves_nothing() -> None:
    identities, session, _, _ = make({1: down()}, moves=0)
    results = await asyncio.gather(
        *(identities.hold(NAME, f"lease{n}") for n in range(5)), return_exceptions=True
    )
    assert [type(r) for r in results] == [UnreachableError] * 5
    assert identities.held() == []
    await identities.hold(NAME, "later")
    assert session.calls == 2
    await identities.close()


async def test_tickets_are_replaced_in_time_and_given_on() -> None:
    identities, _, clock, renewed = make(moves=100_000)
    identity = await identities.hold(NAME, "lease")
    await until(lambda: len(renewed) >= 3)
    assert renewed[:3] == [b"ticket 2", b"ticket 3", b"ticket 4"]
    gaps = [b - a for a, b in itertools.pairwise([START, *clock.renewed_at[:3]])]
    assert all(timedelta(0) < gap < timedelta(hours=7.5) for gap in gaps)
    assert identity.end - clock.now > timedelta(hours=2.5)
    await identities.close()


async def test_an_outage_is_told_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    identities, _, _, renewed = make({2: down(), 3: down(), 4: down()}, moves=100_000)
    identity = await identities.hold(NAME, "lease")
    await until(lambda: identity.last_error is not None)
    (status,) = identities.domains()
    assert status.outage_since is not None
    assert status.last_error is not None
    await until(lambda: renewed)
    assert identity.last_error is None
    (status,) = identities.domains()
    assert (status.outage_since, status.last_error) == (None, None)
    assert identities.failures == 3
    await identities.close()
    # Once for all that fails meanwhile.
    said = re.findall(r"event='(domain-[a-z]+)'", capsys.readouterr().err)
    assert said == ["domain-unreachable", "domain-reached"]


async def test_an_outage_before_there_is_an_identity_is_reported_and_ends(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of a domain that was asked for its facts only, as when a spec is checked."""
    identities, _, clock, _ = make(moves=0)
    session = Located(clock, "example.test")
    session.known_facts = None
    failures = [down(), down()]

    def facts() -> Any:
        if failures:
            raise failures.pop()
        return "facts"

    session.facts = facts  # type: ignore[method-assign]
    identities._domains._open_session = lambda _domain, _source: session  # type: ignore[assignment]
    for _ in range(2):
        with pytest.raises(UnreachableError):
            await identities.facts("example.test")
        (status,) = identities.domains()
        assert status.outage_since == START
        clock.now += timedelta(minutes=1)
    assert cast("Any", await identities.facts("example.test")) == "facts"
    (status,) = identities.domains()
    assert (status.outage_since, status.last_error) == (None, None)
    await identities.close()
    said = re.findall(r"event='(domain-[a-z]+)'", capsys.readouterr().err)
    assert said == ["domain-unreachable", "domain-reached"]


async def test_a_refusal_is_no_outage(capsys: pytest.CaptureFixture[str]) -> None:
    identities, *_ = make({1: NotPermittedError.of("password-not-readable", "no")}, moves=0)
    with pytest.raises(NotPermittedError):
        await identities.hold(NAME, "lease")
    (status,) = identities.domains()
    assert status.outage_since is None
    assert status.last_error is not None
    assert "domain-unreachable" not in capsys.readouterr().err
    await identities.close()


async def test_what_is_adopted_is_not_asked_for_until_it_is_its_time() -> None:
    identities, session, _, renewed = make(moves=0)
    times = {"start": START - timedelta(hours=1), "end": START + timedelta(hours=9)}
    for lease in ("one", "two"):
        identities.adopt(NAME, lease, tickets_in_place=True, **times)
    await asyncio.sleep(0.02)
    assert session.calls == 0
    (identity,) = identities.held()
    assert (identity.ticket, identity.holders) == (None, {"one", "two"})
    when = identities.refresh_at(NAME)
    assert when is not None
    assert START <= when < START + timedelta(hours=6.5)
    # A new lease needs the ticket itself, and all get the new one.
    assert (await identities.hold(NAME, "three")).ticket is not None
    assert session.calls == 1
    assert renewed == [b"ticket 1"]
    await identities.close()


async def test_an_adopted_ticket_that_is_missing_is_got_at_once() -> None:
    identities, session, _, renewed = make(moves=0)
    times = {"start": START, "end": START + timedelta(hours=10)}
    identities.adopt(NAME, "one", tickets_in_place=False, **times)
    await until(lambda: renewed)
    assert session.calls == 1
    await identities.close()


async def test_the_last_release_drops_the_ticket_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timers = Timers(monkeypatch)
    identities, session, _, _ = make(moves=0)
    await identities.hold(NAME, "one")
    await identities.hold(NAME, "two")
    identities.release(NAME, "one")
    timers.go_off()
    assert [identity.holders for identity in identities.held()] == [{"two"}]
    identities.release(NAME, "two")
    await identities.hold(NAME, "three")  # within the while: no new acquisition
    timers.go_off()
    assert session.calls == 1
    assert [identity.holders for identity in identities.held()] == [{"three"}]
    assert identities.refresh_at(NAME) is not None, "its ticket would end"
    identities.release(NAME, "three")
    assert len(identities.held()) == 1
    timers.go_off()
    assert identities.held() == []
    assert identities.refresh_at(NAME) is None
    await identities.close()


async def test_what_is_dropped_while_it_is_acquired_again_stays_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timers = Timers(monkeypatch)
    answered = threading.Event()

    class Waiting(ScriptedSession):
        def acquire(self, account: str) -> Acquisition:
            if self.calls:
                answered.wait(60)
            return super().acquire(account)

    identities, _, clock, renewed = make(moves=0)
    identities._domains._open_session = lambda _domain, _source: Waiting(clock, {})  # type: ignore[assignment]
    await identities.hold(NAME, "lease")
    (domain,) = identities._domains.all()
    task = asyncio.create_task(identities.refresh(NAME))
    await until(lambda: domain.calls)
    identities.release(NAME, "lease")
    timers.go_off()
    answered.set()
    await task
    assert (identities.held(), renewed) == ([], [])
    await identities.close()


async def test_an_identity_acquired_again_by_request_reaches_its_leases() -> None:
    identities, _, _, renewed = make(moves=0)
    identity = await identities.hold(NAME, "lease")
    await identities.refresh(NAME)
    assert renewed == [b"ticket 2"]
    assert identities.held() == [identity]
    await identities.close()


@pytest.mark.parametrize(
    ("error", "is_given"),
    [
        (NotPermittedError.of("password-not-readable", "no"), False),
        (NotFoundError.of("account-not-found", "no"), False),
        (down(), True),
        (CredspecError.of("internal-error", "no"), True),
    ],
)
async def test_a_ticket_that_the_domain_would_not_give_again_is_given_to_nobody(
    error: CredspecError, is_given: bool
) -> None:
    """Leases keep theirs; an outage or a defect says nothing about the account."""
    identities, session, *_ = make({2: error} if is_given else {2: error, 3: error}, moves=0)
    identity = await identities.hold(NAME, "lease")
    with pytest.raises(type(error)):
        await identities.refresh(NAME)
    if is_given:
        assert await identities.hold(NAME, "another") is identity
        assert session.calls == 2
    else:
        with pytest.raises(type(error)):
            await identities.hold(NAME, "another")
        assert identity.holders == {"lease"}
        assert session.calls == 3
    # It is given again when the domain does.
    await identities.refresh(NAME)
    assert (await identities.hold(NAME, "later")).refusal is None
    await identities.close()


async def test_after_a_refresh_by_request_the_plan_is_looked_at_again() -> None:
    identities, _, clock, _ = make(moves=0)
    await identities.hold(NAME, "lease")
    (domain,) = identities._domains.all()
    await until(lambda: clock.sleeps and not domain.changed.is_set())
    for _ in range(10):
        await asyncio.sleep(0)
    before = len(clock.sleeps)
    await identities.refresh(NAME)
    await until(lambda: len(clock.sleeps) > before)
    await identities.close()


async def test_what_is_dropped_before_its_refresh_begins_is_not_acquired(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timers = Timers(monkeypatch)
    identities, session, *_ = make(moves=0)
    await identities.hold(NAME, "lease")
    (domain,) = identities._domains.all()
    domain.schedule.hasten(NAME, START)
    identities._acquirer._start_due(domain)
    assert list(domain.refreshing) == [NAME]
    identities.release(NAME, "lease")
    timers.go_off()
    await until(lambda: not domain.refreshing)
    assert session.calls == 1
    assert domain.schedule.next_time() is None
    await identities.close()


async def test_an_identity_that_was_dropped_and_is_held_again_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two releases set two timers, the second of which finds another identity of the name."""
    timers = Timers(monkeypatch)
    identities, *_ = make(moves=0)
    for holder in ("one", "two"):
        await identities.hold(NAME, holder)
        identities.release(NAME, holder)
    first, second = timers.calls
    first()
    assert identities.held() == []
    await identities.hold(NAME, "three")
    identities.release(NAME, "three")
    second()
    assert len(identities.held()) == 1, "it has a minute of its own"
    await identities.close()


async def test_the_session_of_a_provided_account_lasts_as_long_as_it_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timers = Timers(monkeypatch)
    release = threading.Event()
    closed: list[str] = []

    class Provided(ScriptedSession):
        def acquire(self, account: str) -> Acquisition:
            if account == "waits":
                release.wait(60)
            return super().acquire(account)

        def close(self) -> None:
            closed.append(self.domain)

    identities, _, clock, _ = make(moves=0)
    session = Provided(clock, {2: down()})
    identities._domains._open_session = lambda _domain, _source: session  # type: ignore[assignment]
    source = PluginSource("guid", "input")
    name = IdentityName("webapp01", "example.test", source)
    await identities.hold(name, "lease")
    with pytest.raises(UnreachableError):
        await identities.hold(IdentityName("webapp02", "example.test", source), "other")
    timers.go_off()
    assert closed == [], "a lease uses it"
    identities.release(name, "lease")
    timers.go_off()
    assert closed == ["example.test"]
    # One that fails while another is asked for.
    task = asyncio.create_task(
        identities.hold(IdentityName("waits", "example.test", source), "lease")
    )
    await until(lambda: any(each.calls for each in identities._domains.all()))
    identities._domains.close_unused(name.session)
    assert closed == ["example.test"], "an account is being got by it"
    release.set()
    await task
    await identities.close()


@pytest.mark.parametrize("order", list(itertools.permutations((10, 2, 5))))
async def test_of_several_leases_tickets_the_first_to_end_decides(order: tuple[int, ...]) -> None:
    identities, *_ = make(moves=0)
    for hours in order:
        identities.adopt(
            NAME,
            f"lease of {hours}",
            start=START - timedelta(hours=hours),
            end=START + timedelta(hours=hours),
            tickets_in_place=True,
            keytab_due=START + timedelta(hours=hours),
        )
    (identity,) = identities.held()
    assert (identity.start, identity.end) == (
        START - timedelta(hours=10),
        START + timedelta(hours=2),
    )
    assert identity.keytab_due == START + timedelta(hours=2)
    when = identities.refresh_at(NAME)
    assert when is not None
    assert when < START + timedelta(hours=2)
    await identities.close()


@pytest.mark.parametrize("order", list(itertools.permutations((10, 2, 5))))
async def test_the_first_to_end_is_replaced_in_time(order: tuple[int, ...]) -> None:
    """Also if it is of a lease that is taken over after others."""
    identities, *_ = make(moves=0)
    for hours in order:
        end = START + timedelta(hours=hours)
        identities.adopt(NAME, f"lease of {hours}", start=START, end=end, tickets_in_place=True)
    when = identities.refresh_at(NAME)
    assert when is not None
    assert when < START + timedelta(hours=1.5)
    await identities.close()


async def test_a_caller_that_goes_leaves_the_acquisition_to_the_others() -> None:
    answered = threading.Event()

    class Waiting(ScriptedSession):
        def acquire(self, account: str) -> Acquisition:
            answered.wait(60)
            return super().acquire(account)

    identities, _, clock, _ = make(moves=0)
    session = Waiting(clock, {})
    identities._domains._open_session = lambda _domain, _source: session  # type: ignore[assignment]
    goes = asyncio.create_task(identities.hold(NAME, "goes"))
    stays = asyncio.create_task(identities.hold(NAME, "stays"))
    await until(lambda: identities._table.acquiring)
    goes.cancel()
    await asyncio.wait([goes])
    answered.set()
    assert (await asyncio.wait_for(stays, 60)).holders == {"stays"}
    assert session.calls == 1
    await identities.close()


async def test_the_time_of_day_is_looked_at_every_minute() -> None:
    """A clock that is set, or a host that slept, would bring what is planned hours late."""
    identities, _, clock, _ = make(moves=0)
    await identities.hold(NAME, "one")
    # Before there was an identity it slept for a minute in any case.
    before = len(clock.sleeps)
    identities.clock_changed()
    await until(lambda: len(clock.sleeps) > before)
    when = identities.refresh_at(NAME)
    assert when is not None
    assert when > START + timedelta(hours=1)
    assert clock.sleeps[-1] == 60
    await identities.close()


async def test_waits_that_are_over_leave_no_tasks() -> None:
    identities, _, clock, _ = make(moves=0)
    await identities.hold(NAME, "lease")
    tasks: list[int] = []
    for _ in range(20):
        slept = len(clock.sleeps)
        identities.clock_changed()
        await until(lambda slept=slept: len(clock.sleeps) > slept)  # type: ignore[misc]
        tasks.append(len(asyncio.all_tasks()))
    await until(lambda: len(asyncio.all_tasks()) <= max(tasks[:2]))
    await identities.close()


class Located(ScriptedSession):
    """Knows its facts and its controllers, which change when the test says so."""

    known_facts = cast("Any", "known facts")
    controllers = cast("Any", (DomainController("dc1.example.test", ("192.0.2.1",)),))
    controller = cast("Any", DomainController("dc1.example.test", ("192.0.2.1",)))

    def __init__(self, clock: VirtualClock, domain: str) -> None:
        super().__init__(clock, {})
        self.domain, self.addresses = domain, ("192.0.2.1",)
        self.asked: list[str] = []

    def facts(self) -> Any:
        self.asked.append("facts")
        return "facts"

    def read_facts(self) -> Any:
        self.asked.append("read_facts")
        return "facts read again"

    def follow_controllers(self) -> tuple[str, ...]:
        self.asked.append("follow_controllers")
        return self.addresses


async def test_facts_that_are_known_are_asked_for_only_if_that_is_wanted() -> None:
    identities, _, clock, _ = make(moves=0)
    session = Located(clock, "example.test")
    identities._domains._open_session = lambda _domain, _source: session  # type: ignore[assignment]
    assert cast("Any", await identities.facts("example.test")) == "known facts"
    assert session.asked == []
    assert cast("Any", await identities.facts("example.test", again=True)) == "facts read again"
    assert session.asked == ["read_facts"]
    session.known_facts = None
    assert cast("Any", await identities.facts("example.test")) == "facts"
    (status,) = identities.domains()
    assert status.controller == "dc1.example.test"
    await identities.close()


async def test_leases_are_told_of_the_controllers_that_are_there_now() -> None:
    identities, _, clock, renewed = make(moves=0)
    sessions = {name: Located(clock, name) for name in ("example.test", "other.test")}
    identities._domains._open_session = lambda domain, _source: sessions[domain]  # type: ignore[assignment]
    one = await identities.hold(NAME, "one")
    other = await identities.hold(IdentityName("webapp01", "other.test"), "other")
    assert one.kdc_addresses == other.kdc_addresses == ("192.0.2.1",)
    await identities.follow_controllers(NAME.session)
    assert renewed == [], "nothing has changed"
    sessions["example.test"].addresses = ("192.0.2.2", "192.0.2.3")
    await identities.follow_controllers(NAME.session)
    assert one.kdc_addresses == ("192.0.2.2", "192.0.2.3")
    assert other.kdc_addresses == ("192.0.2.1",)
    assert renewed == [b"ticket 1"]
    await identities.close()


async def test_controllers_are_looked_at_before_use_unless_one_just_answered() -> None:
    identities, _, clock, _ = make(moves=0)
    session = Located(clock, "example.test")
    identities._domains._open_session = lambda _domain, _source: session  # type: ignore[assignment]
    await identities.hold(NAME, "one")
    assert session.asked == []
    (domain,) = identities._domains.all()
    for age, asked in ((4.0, []), (6.0, ["follow_controllers"]), (0.0, ["follow_controllers"])):
        if age:
            domain.controllers_checked_at = asyncio.get_running_loop().time() - age
        await identities.hold(NAME, f"{age} s later")
        assert session.asked == asked
    await identities.close()


class WithKeytab(ScriptedSession):
    """Makes keytabs, too, that are due in twenty days."""

    keytab_life = timedelta(days=20)

    def acquire_with_keytab(self, account: str) -> Acquisition:
        acquired = self.acquire(account)
        due = self.clock.now + self.keytab_life
        return replace(acquired, keytab=b"keys", keytab_due=due)


async def test_a_keytab_lasts_as_long_as_a_holder_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    identities, _, clock, renewed = make(moves=0)
    session = WithKeytab(clock, {})
    identities._domains._open_session = lambda _domain, _source: session  # type: ignore[assignment]
    identity = await identities.hold(NAME, "ticket")
    assert identity.keytab is None
    assert (await identities.hold(NAME, "keytab", keytab=True)).keytab == b"keys"
    assert renewed == [b"ticket 2"], "all leases have the same ticket"
    await identities.hold(NAME, "another", keytab=True)
    assert session.calls == 2
    identities.release(NAME, "keytab")
    assert identity.keytab == b"keys"
    assert identity.keytab_due is not None
    identities.release(NAME, "another")
    assert (identity.keytab, identity.keytab_due) == (None, None)
    await identities.close()


async def test_a_keytab_is_made_again_after_the_next_password_is_there() -> None:
    identities, _, clock, _ = make(moves=0)
    identities._domains._open_session = lambda _domain, _source: WithKeytab(clock, {})  # type: ignore[assignment]
    due = START + timedelta(hours=1)
    times = {"start": START, "end": START + timedelta(days=7)}
    identities.adopt(NAME, "lease", tickets_in_place=True, keytab_due=due, **times)
    when = identities.refresh_at(NAME)
    assert when is not None
    assert due + timedelta(seconds=10) <= when <= due + timedelta(seconds=200)
    # Also once all is planned again.
    identities.clock_changed()
    assert identities.refresh_at(NAME) == when
    await identities.close()


async def test_each_keytab_is_followed_by_the_next() -> None:
    """Also where another ticket would do for longer."""

    class SoonOver(WithKeytab):
        keytab_life = timedelta(minutes=1)

    identities, _, clock, _ = make(moves=0)
    identities._domains._open_session = lambda _domain, _source: SoonOver(clock, {})  # type: ignore[assignment]
    await identities.hold(NAME, "lease", keytab=True)
    for _ in range(3):
        when = identities.refresh_at(NAME)
        assert when is not None
        assert timedelta(seconds=70) <= when - clock.now <= timedelta(seconds=260)
        clock.now = when
        await identities.refresh(NAME)
    await identities.close()


async def test_specs_that_name_many_domains_take_few_threads() -> None:
    identities, session, _, _ = make(moves=0)
    await identities.hold(NAME, "lease")
    closed: list[str] = []

    class Unused(ScriptedSession):
        known_facts = None

        def __init__(self, domain: str) -> None:
            super().__init__(VirtualClock(0), {})
            self.domain = domain

        def facts(self) -> DomainFacts:
            raise down()

        def close(self) -> None:
            closed.append(self.domain)

    identities._domains._open_session = lambda domain, _: Unused(domain)  # type: ignore[assignment]
    for number in range(300):
        with pytest.raises(UnreachableError):
            await identities.facts(f"d{number}.test")
        assert len(identities.domains()) <= 128
    assert len(closed) >= 300 - 128
    # The one that is in use is not among them.
    assert NAME.domain in {status.domain for status in identities.domains()}
    assert (await identities.hold(NAME, "another")).ticket is not None
    assert session.calls == 1
    await identities.close()


async def test_domains_that_are_all_being_asked_are_refused_beyond_a_number() -> None:
    release = threading.Event()

    class Waiting(ScriptedSession):
        known_facts = None

        def facts(self) -> DomainFacts:
            release.wait(60)
            raise down()

    identities, _, clock, _ = make(moves=0)
    identities._domains._open_session = lambda _domain, _source: Waiting(clock, {})  # type: ignore[assignment]
    tasks = [asyncio.create_task(identities.facts(f"d{number}.test")) for number in range(128)]
    await asyncio.sleep(0.01)
    with pytest.raises(TooManyRequestsError, match="domains-too-many"):
        await identities.facts("one-more.test")
    release.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    await identities.close()


async def test_a_defect_of_the_schedule_does_not_end_the_refreshing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    identities, session, _, renewed = make(moves=50)
    monkeypatch.setattr("credspec.agent.identities.acquisition._LONGEST_SLEEP_SECONDS", 3600.0)
    await identities.hold(NAME, "lease")
    (domain,) = identities._domains.all()
    real, calls = domain.schedule.due, 0

    def fails_once(now: datetime) -> list[IdentityName]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ZeroDivisionError
        return real(now)

    monkeypatch.setattr(type(domain.schedule), "due", lambda _, now: fails_once(now))
    await until(lambda: renewed)
    assert session.calls >= 2
    await identities.close()


async def test_a_defect_in_renewing_leases_does_not_end_the_refreshing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    identities, session, _, renewed = make(moves=2000)

    async def fails(_: Identity) -> None:
        if session.calls < 3:
            raise ZeroDivisionError
        renewed.append(b"")

    identities._acquirer._renewed = fails
    await identities.hold(NAME, "lease")
    await until(lambda: renewed)
    await identities.close()
    shown = capsys.readouterr().err
    assert "refresh-failed" in shown
    assert "domain-reached" not in shown, "it was no outage"


async def test_sessions_of_a_changed_provider_log_on_again_and_no_others() -> None:
    identities, session, _, renewed = make(moves=0)
    provided = NAME._replace(source=PluginSource("{g}", "file:reader"))
    await identities.hold(NAME, "a")
    await identities.hold(provided, "b")
    assert session.calls == 2
    await identities.forget_logons(lambda _: False)
    assert session.forgotten == 0
    await identities.forget_logons(lambda source: source is not None)
    # What it gave is forgotten at once, and its identity gets a new ticket.
    assert session.forgotten == 1
    await until(lambda: renewed)
    assert (session.calls, renewed) == (3, [b"ticket 3"])
    await identities.close()
