"""Clocks that jump while the agent runs, at a real controller: suspend, a clock put right.

The agent and the controller run under a faked clock; nothing sets that of the machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import krb5
import pytest

from credspec.errors import UnreachableError
from credspec.lab.domain import Lab
from support.agent.agent_process import AgentProcess

FAKETIME = f"/usr/lib/{os.uname().machine}-linux-gnu/faketime/libfaketimeMT.so.1"
HOUR = 3600
# Both clocks are ahead at first: Samba has no password for a time before the account was made.
BASE = 6 * HOUR


class Clocks:
    """The agent's clock, which can be set while it runs, and the controller's, which restarts."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self._lab = lab
        self._file = directory / "clock"
        self.offset = 0
        self.set_host(BASE)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": FAKETIME,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set_host(self, offset: int) -> None:
        self.offset = offset
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset:+d}s\n")
        new.replace(self._file)

    def set_domain(self, offset: int) -> None:
        self._lab.stop_dc()
        self.start_domain(offset)

    def start_domain(self, offset: int) -> None:
        self._lab.start_dc(offset_seconds=offset)

    def now(self) -> float:
        return time.time() + self.offset


@pytest.fixture
def clocks(lab: Lab, tmp_path: Path) -> Iterator[Clocks]:
    yield Clocks(lab, tmp_path)
    lab.stop_dc()
    lab.start_dc()


@pytest.fixture
def agent(lab: Lab, tmp_path: Path, clocks: Clocks) -> Iterator[AgentProcess]:
    found = AgentProcess(lab, tmp_path)
    text = (tmp_path / "specs/one.json").read_text()
    (tmp_path / "specs/two.json").write_text(text.replace("WebApp01", "WebApp02"))
    clocks.set_domain(BASE)
    yield found
    found.close()


def times(agent: AgentProcess, number: int) -> tuple[int, int]:
    """Return from when to when a container's ticket is good."""
    path = agent.lease_directory(number) / "krb5cc"
    [ticket] = krb5.cc_resolve(krb5.init_context(), f"FILE:{path}".encode())
    return ticket.times.starttime or ticket.times.authtime, ticket.times.endtime


def is_good(agent: AgentProcess, number: int, clocks: Clocks) -> bool:
    """Whether a container's ticket may be given, by the clock that both sides have."""
    start, end = times(agent, number)
    return start <= clocks.now() + 300 and end - clocks.now() > (end - start) / 4


def make_lease(agent: AgentProcess, number: int, spec: str = "file://one.json") -> None:
    """Make a lease; a controller that has just started may be slow to answer at first."""
    end = time.monotonic() + 60
    while True:
        try:
            agent.put(number, spec)
        except UnreachableError as error:
            if time.monotonic() > end or error.code != "dns-unreachable":
                raise
        else:
            return


def wait_for_good(agent: AgentProcess, number: int, clocks: Clocks) -> None:
    end = time.monotonic() + 120
    while not is_good(agent, number, clocks):
        assert time.monotonic() < end, agent.log.read_text()[-3000:]
        time.sleep(0.2)


def wait_for_event(agent: AgentProcess, name: str, number: int = 1) -> None:
    end = time.monotonic() + 60
    while agent.log.read_text().count(f"event='{name}'") < number:
        assert time.monotonic() < end, agent.log.read_text()[-3000:]
        time.sleep(0.1)


@pytest.mark.parametrize("jump", [11 * HOUR, -5 * HOUR], ids=["forward", "back"])
def test_leases_made_after_a_jump_have_good_tickets(
    agent: AgentProcess, clocks: Clocks, jump: int
) -> None:
    agent.start(**clocks.environment)
    agent.mount(1)
    make_lease(agent, 1)
    assert is_good(agent, 1, clocks)
    clocks.set_domain(BASE + jump)
    clocks.set_host(BASE + jump)
    # At once, whether or not anything has noticed yet.
    agent.mount(2)
    make_lease(agent, 2)
    assert is_good(agent, 2, clocks)
    wait_for_event(agent, "clock-changed")
    # The container that was there has it, too; one ticket serves both.
    wait_for_good(agent, 1, clocks)
    assert agent.client.get("/v1/identities")["acquisitions"] <= 3


@pytest.mark.parametrize("jump", [11 * HOUR, -5 * HOUR], ids=["forward", "back"])
def test_containers_that_run_get_good_tickets_by_themselves(
    agent: AgentProcess, clocks: Clocks, jump: int
) -> None:
    agent.start(**clocks.environment)
    for number, spec in ((1, "one"), (2, "two")):
        agent.mount(number)
        make_lease(agent, number, f"file://{spec}.json")
    clocks.set_domain(BASE + jump)
    clocks.set_host(BASE + jump)
    for number in (1, 2):
        wait_for_good(agent, number, clocks)
    assert agent.log.read_text().count("event='clock-changed'") == 1


@pytest.mark.parametrize("jump", [11 * HOUR, 8 * HOUR, -5 * HOUR], ids=["ended", "late", "early"])
def test_without_the_domain_no_container_gets_such_a_ticket(
    agent: AgentProcess, clocks: Clocks, lab: Lab, jump: int
) -> None:
    agent.start(**clocks.environment)
    agent.mount(1)
    make_lease(agent, 1)
    lab.stop_dc()
    clocks.set_host(BASE + jump)
    agent.mount(2)
    for _ in range(2):
        with pytest.raises(UnreachableError) as caught:
            agent.put(2)
        unfit = [p.found for p in caught.value.problems if p.code == "ticket-unfit"]
        assert len(unfit) == 1
        assert any(words in unfit[0] for words in ("ended 1 h", "is 8 h", "starts 4 h"))
        assert list(agent.lease_directory(2).iterdir()) == []
    assert agent.lease_containers() == ["container1"]
    # It is away only for a while.
    clocks.start_domain(BASE + jump)
    make_lease(agent, 2)
    assert is_good(agent, 2, clocks)
    wait_for_good(agent, 1, clocks)


@pytest.mark.parametrize("jump", [11 * HOUR, -5 * HOUR], ids=["forward", "back"])
def test_a_clock_that_was_set_while_no_agent_ran(
    agent: AgentProcess, clocks: Clocks, jump: int
) -> None:
    agent.start(**clocks.environment)
    agent.mount(1)
    make_lease(agent, 1)
    agent.end()
    clocks.set_domain(BASE + jump)
    clocks.set_host(BASE + jump)
    agent.start(**clocks.environment)
    wait_for_good(agent, 1, clocks)


def test_containers_that_are_gone_do_not_live_on_when_the_clock_is_set_back(
    agent: AgentProcess, clocks: Clocks
) -> None:
    """A new lease counts as alive for two minutes: of the host's life, not of its clock."""
    agent.start(**clocks.environment)
    agent.mount(1)
    make_lease(agent, 1)
    agent.state(1).rmdir()
    record = agent.run_directory / "journal" / f"{1:032x}.json"
    agent.end()
    # Two minutes later, as the clock that cannot be set has it; the other one is five hours back.
    text = record.read_text()
    made = float(text.split('"created_monotonic": ')[1].split(",")[0].rstrip("}"))
    record.write_text(text.replace(str(made), str(made - 121)))
    clocks.set_host(BASE - 5 * HOUR)
    agent.start(**clocks.environment)
    assert agent.lease_containers() == []
    agent.state(1).mkdir()
