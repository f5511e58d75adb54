"""Tickets of services that all leases share; the domain and the clock are simulated."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from credspec.agent.identities.identities import Identities
from credspec.agent.identities.identity import IdentityName
from credspec.agent.identities.service_tickets import ServiceTickets
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

    async def get(self, text: str = "HTTP/a", life: timedelta = LIFE) -> ServiceTicket:
        return await self.tickets.get(NAME, "lease", service(text), life)


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
