"""A domain's threads: what ends with them, and what they leave behind."""

from __future__ import annotations

import asyncio
import threading
import traceback
from typing import cast

import pytest

from credspec.agent.identities.open_domain import OpenDomain
from credspec.errors import CredspecError, UnreachableError
from credspec.session.domain_session import DomainSession


class Session:
    """Stands for a domain of which the tests need the name and the end."""

    domain = "example.test"

    def __init__(self) -> None:
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


def opened() -> tuple[OpenDomain, Session]:
    session = Session()
    return OpenDomain(cast("DomainSession", session), min), session


@pytest.mark.parametrize(
    "error", [UnreachableError.of("dc-unreachable", "down"), ZeroDivisionError("hunter2")]
)
async def test_an_error_leaves_no_frames_of_the_call(error: Exception) -> None:
    """They hold passwords, which would last as long as the error."""
    domain, _ = opened()

    def reads_a_password() -> None:
        password = "hunter2"  # noqa: F841 - what must not be found
        raise error

    with pytest.raises(CredspecError) as caught:
        await domain.run(reads_a_password)
    names = {frame.f_code.co_name for frame, _ in traceback.walk_tb(caught.tb)}
    assert "reads_a_password" not in names
    assert error.__traceback__ is None
    assert "hunter2" not in str(caught.value)
    assert domain.calls == 0
    domain.close()


async def test_its_end_waits_for_no_call_and_begins_none() -> None:
    """A call to a domain that hangs would hold up the end of the agent."""
    domain, session = opened()
    gate, closed = threading.Event(), threading.Event()
    begun: list[threading.Thread] = []

    def hangs() -> None:
        begun.append(threading.current_thread())
        gate.wait(120)

    calls = [asyncio.create_task(domain.run(hangs)) for _ in range(20)]
    async with asyncio.timeout(60):
        while len(begun) < 8:
            await asyncio.sleep(0.001)

    def close() -> None:
        domain.close()
        closed.set()

    threading.Thread(target=close).start()
    try:
        assert await asyncio.to_thread(closed.wait, 20)
        assert session.is_closed
    finally:
        gate.set()
    await asyncio.wait(calls)
    assert len(begun) == 8
    assert sum(call.cancelled() for call in calls) == 12
    for thread in begun:
        await asyncio.to_thread(thread.join, 30)
    assert not any(thread.is_alive() for thread in begun)
