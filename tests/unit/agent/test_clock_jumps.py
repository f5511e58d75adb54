"""Identities whose clock jumps, with a scripted session: what is given is always good."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credspec.agent.identities.identities import Identities
from credspec.agent.identities.identity import Identity, IdentityName
from credspec.errors import CredspecError, NotFoundError, NotPermittedError, UnreachableError
from credspec.kerberos.ticket_life import is_fit_to_give
from credspec.kerberos.tickets import Ticket
from credspec.session.domain_session import Acquisition

START = datetime(2026, 1, 1, tzinfo=UTC)
LIFE = timedelta(hours=10)
NAME = IdentityName("webapp01", "example.test")
OTHER = IdentityName("webapp02", "example.test")


def down() -> CredspecError:
    return UnreachableError.of("dc-unreachable", "down")


def forbidden() -> CredspecError:
    return NotPermittedError.of("password-not-permitted", "this host may not read it")


def gone() -> CredspecError:
    return NotFoundError.of("account-not-found", "there is no such account")


class Bench:
    """A domain and a host, each with a clock; both can jump. What fails is what the test says."""

    def __init__(self, life: timedelta = LIFE) -> None:
        self.domain_time = self.host_time = START
        self.life = life
        self.error: CredspecError | None = None
        self.calls = 0
        self.renewed: list[Identity] = []
        self.wrong: list[str] = []
        self.acquired: dict[bytes, datetime] = {}
        self.sleeps: list[float] = []
        self.woken = asyncio.Event()
        self.identities = Identities(
            lambda _domain, _source: self,  # type: ignore[arg-type, return-value]
            self._renewed,
            now=lambda: self.host_time,
            sleep=self._sleep,
            spread=lambda low, high: (low + high) / 2,
        )

    domain = "example.test"
    controllers = ()
    controller = None
    latency = None

    def acquire(self, account: str) -> Acquisition:
        self.calls += 1
        if self.error is not None:
            raise self.error
        if abs(self.domain_time - self.host_time) > timedelta(minutes=5):
            raise NotPermittedError.of("kdc-clock-skew", "the clock differs")
        start = self.domain_time
        cache = f"ticket {self.calls}".encode()
        self.acquired[cache] = self.host_time
        ticket = Ticket(f"{account}$@EXAMPLE.TEST", start, start + self.life, 18, cache)
        return Acquisition(f"{account}$", ticket, start + timedelta(days=30))

    acquire_with_keytab = acquire

    def close(self) -> None:
        pass

    async def _sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        await self.woken.wait()

    async def _renewed(self, identity: Identity) -> None:
        self.renewed.append(identity)
        # The clocks may have jumped since; the renewal of leases looks at the ticket once more.
        assert identity.ticket is not None
        self.check(identity, self.acquired[identity.ticket.ccache])

    def check(self, identity: Identity, at: datetime | None = None) -> None:
        now = at or self.host_time
        if not is_fit_to_give(identity.start, identity.end, now):
            self.wrong.append(f"{identity.start} to {identity.end} at {now}")

    def jump(self, span: timedelta, *, domain: bool) -> None:
        self.host_time += span
        if domain:
            self.domain_time += span

    async def hold(self, name: IdentityName = NAME, holder: str = "lease") -> Identity:
        identity = await self.identities.hold(name, holder)
        self.check(identity)
        return identity

    async def settle(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0.002)


@pytest.fixture
async def bench() -> Iterator[Bench]:  # type: ignore[misc]
    made = Bench()
    yield made
    await made.identities.close()


async def test_after_a_jump_forward_a_new_ticket_comes_before_the_lease(bench: Bench) -> None:
    await bench.hold()
    bench.jump(timedelta(hours=11), domain=True)
    identity = await bench.hold(holder="new")
    assert bench.calls == 2
    assert identity.start == START + timedelta(hours=11)
    # The leases that are there are given it, too.
    assert bench.renewed == [identity]


async def test_after_a_jump_back_a_new_ticket_comes_before_the_lease(bench: Bench) -> None:
    await bench.hold()
    bench.jump(timedelta(hours=-5), domain=True)
    assert (await bench.hold(holder="new")).start == START - timedelta(hours=5)
    assert bench.calls == 2


async def test_a_small_step_of_the_clock_costs_nothing(bench: Bench) -> None:
    await bench.hold()
    for step in (-4, 4):
        bench.jump(timedelta(minutes=step), domain=True)
        await bench.hold(holder="new")
    assert bench.calls == 1


@pytest.mark.parametrize(
    ("jump", "words"),
    [
        (timedelta(hours=11), "ended 1 h 0 min ago"),
        (timedelta(hours=8), "is 8 h 0 min old and ends in 2 h 0 min"),
        (timedelta(hours=-5), "starts 5 h 0 min from now"),
    ],
)
async def test_without_the_domain_it_is_refused_and_said_why(
    bench: Bench, jump: timedelta, words: str
) -> None:
    await bench.hold()
    bench.jump(jump, domain=True)
    bench.error = down()
    for holder in ("one", "two"):
        with pytest.raises(UnreachableError, match=words) as caught:
            await bench.hold(holder=holder)
        assert [problem.code for problem in caught.value.problems] == [
            "dc-unreachable",
            "ticket-unfit",
        ]
    (identity,) = bench.identities.held()
    assert identity.holders == {"lease"}
    bench.error = None
    await bench.hold(holder="three")


async def test_a_ticket_that_is_good_is_given_while_the_domain_is_away(bench: Bench) -> None:
    await bench.hold()
    bench.error = down()
    bench.jump(timedelta(hours=7), domain=True)
    await bench.hold(holder="new")
    assert bench.calls == 1


@pytest.mark.parametrize("refusal", [forbidden, gone])
async def test_what_the_domain_refuses_is_given_to_nobody_else(bench: Bench, refusal) -> None:
    identity = await bench.hold()
    bench.error = refusal()
    with pytest.raises(CredspecError):
        await bench.identities.refresh(NAME)
    # The container keeps what it has; a new one is refused, by what the domain says now.
    assert identity.ticket is not None
    assert identity.holders == {"lease"}
    with pytest.raises(type(bench.error), match=bench.error.code):
        await bench.hold(holder="new")
    # Nor does an outage afterwards make it good again.
    bench.error = down()
    with pytest.raises(UnreachableError, match=refusal().code):
        await bench.hold(holder="new")
    bench.error = None
    await bench.hold(holder="new")
    assert identity.refusal is None


async def test_tickets_of_a_domain_that_are_never_good_end_in_a_refusal() -> None:
    bench = Bench(timedelta(minutes=4))
    # The host is ahead, by less than what is refused: nothing is left of so short a life.
    bench.host_time += timedelta(minutes=4.5)
    with pytest.raises(NotPermittedError, match="ticket-unfit"):
        await bench.hold()
    assert bench.calls == 3
    await bench.identities.close()


async def test_a_jump_that_is_told_wakes_the_refresher(bench: Bench) -> None:
    await bench.hold()
    await bench.hold(OTHER)
    await bench.settle()
    bench.jump(timedelta(hours=11), domain=True)
    await bench.settle()
    assert bench.calls == 2, "it sleeps by another clock"
    bench.identities.clock_changed()
    await bench.settle()
    # It sleeps for seconds now, not until the times that were planned before.
    assert bench.sleeps[-1] <= 10
    bench.jump(timedelta(seconds=10), domain=True)
    bench.woken.set()
    while len(bench.renewed) < 2:
        await asyncio.sleep(0.001)
    assert not bench.wrong


steps = st.lists(
    st.tuples(
        st.sampled_from(["hold", "jump", "both jump", "told", "down", "forbidden", "up", "pass"]),
        st.timedeltas(timedelta(hours=-30), timedelta(hours=30)),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(steps, st.sampled_from([LIFE, timedelta(minutes=30), timedelta(days=7)]))
def test_no_ticket_is_given_late_or_before_its_time(
    script: list[tuple[str, timedelta]], life: timedelta
) -> None:
    """Whatever the clocks of both sides do, and whatever the domain says meanwhile."""

    async def run() -> Bench:
        bench = Bench(life)
        for number, (step, span) in enumerate(script):
            if step in {"jump", "both jump"}:
                bench.jump(span, domain=step == "both jump")
            elif step == "pass":
                bench.jump(abs(span), domain=True)
            elif step == "told":
                bench.identities.clock_changed()
            elif step in {"down", "forbidden", "up"}:
                bench.error = {"down": down, "forbidden": forbidden}.get(step, lambda: None)()
            else:
                try:
                    await bench.hold(holder=str(number))
                except CredspecError:
                    pass
                else:
                    await bench.hold(holder=f"{number} again")
            bench.woken.set()
            await asyncio.sleep(0)
            bench.woken.clear()
        await bench.identities.close()
        return bench

    assert asyncio.run(run()).wrong == []
