"""Tickets of services that all leases share; the domain and the clock are simulated."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from credspec.agent.identities.identities import Identities
from credspec.agent.identities.identity import IdentityName
from credspec.agent.identities.service_tickets import MOST_HELD, ServiceTickets
from credspec.errors import NotPermittedError
from credspec.kerberos.service_credentials import ServiceTicket
from credspec.kerberos.service_names import ServiceName

START = datetime(2026, 11, 27, tzinfo=UTC)
NAME = IdentityName("webapp01", "a.test")
LIFE = timedelta(minutes=10)


def service(text: str) -> ServiceName:
    found = ServiceName.parse(text)
    assert found is not None
    return found


class SimulatedDomain:
    """Gives a ticket for each question, or refuses it."""

    def __init__(self) -> None:
        self.now = START
        self.asked: list[str] = []
        self.refuses = False
        self.tickets = ServiceTickets(cast("Identities", self), now=lambda: self.now)

    async def service_ticket(
        self, name: IdentityName, wanted: ServiceName, life: timedelta
    ) -> ServiceTicket:
        self.asked.append(f"{name.account} {wanted}")
        await asyncio.sleep(0)
        if self.refuses:
            raise NotPermittedError.of("simulated", "refused")
        end = self.now + life
        return ServiceTicket(
            wanted, "A$@A.TEST", "A.TEST", START, self.now, end, 0, 18, b"key", b"ticket"
        )

    async def get(
        self, text: str = "HTTP/a", life: timedelta = LIFE, name: IdentityName = NAME
    ) -> ServiceTicket:
        return await self.tickets.get(name, "lease", service(text), life)

    def held(self, name: IdentityName = NAME) -> int:
        """Return how many tickets of an account are in memory."""
        return len(self.tickets._held.get(name, {}))


async def test_many_who_ask_at_once_cost_one_question() -> None:
    domain = SimulatedDomain()
    found = await asyncio.gather(*(domain.get() for _ in range(200)))
    assert len(domain.asked) == 1
    assert len({each.ticket for each in found}) == 1


async def test_another_spelling_is_the_same_ticket_under_that_name() -> None:
    domain = SimulatedDomain()
    await domain.get("HTTP/a")
    assert (await domain.get("http/A")).service.text == "http/A"
    assert len(domain.asked) == 1
    await domain.get("HTTP/a:80")
    assert len(domain.asked) == 2


async def test_one_is_handed_out_while_half_of_its_life_is_left() -> None:
    domain = SimulatedDomain()
    await domain.get()
    domain.now += LIFE / 2
    await domain.get()
    assert len(domain.asked) == 1
    domain.now += timedelta(seconds=1)
    assert (await domain.get()).end == domain.now + LIFE
    assert len(domain.asked) == 2


async def test_after_the_clock_was_set_back_another_is_asked_for() -> None:
    domain = SimulatedDomain()
    await domain.get()
    domain.now -= timedelta(minutes=4)
    await domain.get()
    assert len(domain.asked) == 1
    domain.now -= timedelta(minutes=2)
    await domain.get()
    assert len(domain.asked) == 2


async def test_another_life_is_another_ticket() -> None:
    domain = SimulatedDomain()
    await domain.get(life=timedelta(hours=1))
    assert (await domain.get()).end == START + LIFE


async def test_a_refusal_reaches_all_and_is_not_remembered() -> None:
    domain = SimulatedDomain()
    domain.refuses = True
    found = await asyncio.gather(*(domain.get() for _ in range(5)), return_exceptions=True)
    assert all(isinstance(each, NotPermittedError) for each in found)
    assert len(domain.asked) == 1
    domain.refuses = False
    await domain.get()
    assert len(domain.asked) == 2


async def test_one_who_goes_does_not_end_the_question_of_the_others() -> None:
    domain = SimulatedDomain()
    impatient = asyncio.create_task(domain.get())
    patient = asyncio.create_task(domain.get())
    await asyncio.sleep(0)
    impatient.cancel()
    assert (await patient).ticket == b"ticket"
    with pytest.raises(asyncio.CancelledError):
        await impatient


async def test_what_is_held_serves_an_outage_until_it_ends() -> None:
    domain = SimulatedDomain()
    assert domain.tickets.held(NAME, service("HTTP/a"), LIFE) is None
    await domain.get()
    domain.now += LIFE - timedelta(seconds=1)
    assert domain.tickets.held(NAME, service("HTTP/a"), LIFE) is not None
    domain.now += timedelta(seconds=1)
    assert domain.tickets.held(NAME, service("HTTP/a"), LIFE) is None


async def test_of_an_account_so_many_are_held_those_that_came_last() -> None:
    """Whatever a container asks for, another account keeps its own."""
    domain = SimulatedDomain()
    other = IdentityName("webapp02", "a.test")
    await domain.get("HTTP/a", name=other)
    for number in range(MOST_HELD + 20):
        await domain.get(f"HTTP/host{number}")
    assert domain.held() == MOST_HELD
    asked = len(domain.asked)
    await domain.get(f"HTTP/host{MOST_HELD + 19}")
    await domain.get("HTTP/host20")
    await domain.get("HTTP/a", name=other)
    assert len(domain.asked) == asked
    await domain.get("HTTP/host0")
    assert len(domain.asked) == asked + 1


async def test_what_has_ended_is_forgotten() -> None:
    domain = SimulatedDomain()
    other = IdentityName("webapp02", "a.test")
    await domain.get("HTTP/a", name=other)
    await domain.get("HTTP/a")
    await domain.get("HTTP/b", life=2 * LIFE)
    domain.now += LIFE
    await domain.get("HTTP/c")
    assert (domain.held(other), domain.held()) == (0, 2)
