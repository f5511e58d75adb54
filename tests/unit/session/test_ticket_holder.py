"""When tickets of a host identity are got again, whichever key they are got with (simulated)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.errors import CredspecError, NotPermittedError, UnreachableError
from credspec.kerberos.kdc_errors import KeyRefusedError
from credspec.kerberos.tickets import Ticket
from credspec.session import ticket_holder
from credspec.session.ticket_holder import TicketHolder

HERE, THERE = "ldap/dc.contoso.com", "ldap/dc.fabrikam.com"
LIFE = timedelta(hours=10)
REFUSAL = NotPermittedError.of("kdc-x", "no")
KEY_REFUSED = KeyRefusedError.of("kdc-key-refused", "no")
OUTAGE = UnreachableError.of("kdc-unreachable", "no")


class Simulation:
    """A KDC, a clock and a cache: `cached` is what the cache has, None is the TGT."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.failures: dict[str | None, CredspecError] = {}
        self.acquired: list[str | None] = []
        self.by_tgt: list[str] = []
        self.cached: dict[str | None, Ticket] = {}
        self.holder = TicketHolder(
            "MEMORY:simulated",
            self.acquire,
            now=lambda: self.now,
        )

    def acquire(self, service: str | None) -> Ticket:
        self.acquired.append(service)
        if service in self.failures:
            with ticket_holder.first_exchange(service, KeyRefusedError):
                raise self.failures[service]
        if service is None or not self.holder.has_tickets:
            self.cached.clear()
        assert service not in self.cached, "next to an old one, the new one is not found"
        ticket = Ticket("x", self.now, self.now + LIFE, 18, b"")
        self.cached[service] = ticket
        return ticket

    def get_by_tgt(self, cache: str, service: str) -> None:
        assert cache == "MEMORY:simulated"
        assert self.lasts(self.cached[None])
        self.by_tgt.append(service)

    def lasts(self, ticket: Ticket) -> bool:
        return self.now < ticket.end


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> Simulation:
    simulation = Simulation()
    monkeypatch.setattr(ticket_holder, "get_service_ticket_by_tgt", simulation.get_by_tgt)
    return simulation


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["tgt", HERE, HERE.upper(), THERE, "forget"]),
        st.floats(0, 20),
        st.sampled_from([None, REFUSAL, KEY_REFUSED, OUTAGE]),
        st.sampled_from([None, HERE]),
    ),
    max_size=12,
)


@given(STEPS)
def test_what_is_returned_lasts_and_is_in_the_cache(
    steps: list[tuple[str, float, CredspecError | None, str | None]],
) -> None:
    simulation = Simulation()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ticket_holder, "get_service_ticket_by_tgt", simulation.get_by_tgt)
        for what, hours, failure, of in steps:
            simulation.now += timedelta(hours=hours)
            simulation.failures = {} if failure is None else {of: failure}
            if what == "forget":
                simulation.holder.forget()
                assert not simulation.holder.has_tickets
                continue
            try:
                if what == "tgt":
                    ticket = simulation.holder.get_tgt()
                else:
                    ticket = simulation.holder.get_service_ticket(what, "contoso.com")
            except CredspecError as error:
                assert error is failure
                continue
            assert simulation.lasts(ticket)
            assert ticket in simulation.cached.values()


def test_a_ticket_is_used_until_half_an_hour_before_its_end(simulated: Simulation) -> None:
    first = simulated.holder.get_service_ticket(HERE, "contoso.com")
    simulated.now += LIFE - timedelta(minutes=31)
    assert simulated.holder.get_service_ticket(HERE, "contoso.com") is first
    simulated.now += timedelta(minutes=2)
    assert simulated.holder.get_service_ticket(HERE, "contoso.com") is not first
    assert simulated.acquired == [HERE, HERE]
    assert not simulated.holder.has_tgt


def test_a_service_of_another_domain_takes_a_tgt(simulated: Simulation) -> None:
    tgt = simulated.holder.get_service_ticket(THERE, "contoso.com")
    assert simulated.holder.get_service_ticket(THERE, "contoso.com") is tgt
    assert (simulated.acquired, simulated.by_tgt) == ([None], [THERE, THERE])


@pytest.mark.parametrize(
    ("failure", "asked"),
    [(REFUSAL, [HERE, None]), (KEY_REFUSED, [HERE]), (OUTAGE, [HERE])],
    ids=["a refusal", "a refusal of the key", "an outage"],
)
def test_a_tgt_is_tried_where_it_may_help_only(
    simulated: Simulation, failure: CredspecError, asked: list[str | None]
) -> None:
    simulated.failures = {HERE: failure}
    if None in asked:
        simulated.holder.get_service_ticket(HERE, "contoso.com")
        assert simulated.by_tgt == [HERE]
    else:
        with pytest.raises(CredspecError) as caught:
            simulated.holder.get_service_ticket(HERE, "contoso.com")
        assert caught.value is failure
    assert simulated.acquired == asked


def test_a_tgt_that_is_refused_leaves_the_tickets_of_services(simulated: Simulation) -> None:
    ticket = simulated.holder.get_service_ticket(HERE, "contoso.com")
    simulated.failures = {None: OUTAGE}
    with pytest.raises(UnreachableError):
        simulated.holder.get_tgt()
    assert simulated.holder.get_service_ticket(HERE, "contoso.com") is ticket
    assert simulated.acquired == [HERE, None]


def test_tickets_of_services_go_with_what_the_cache_had(simulated: Simulation) -> None:
    """A new TGT takes the place of all of them."""
    first = simulated.holder.get_service_ticket(HERE, "contoso.com")
    assert not simulated.holder.has_tgt
    simulated.holder.get_tgt()
    assert simulated.holder.has_tgt
    assert simulated.holder.get_service_ticket(HERE, "contoso.com") is not first
    assert simulated.acquired == [HERE, None, HERE]
