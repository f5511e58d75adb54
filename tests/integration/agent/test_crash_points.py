"""`kill -9` before each effect that the agent has on a file, and what the next run makes of it.

The points are counted, not sampled: the agent kills itself before the first effect of an operation,
then before the second, and so on until the operation ends without a crash.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import krb5
import pytest

from credspec.errors import AgentUnreachableError
from credspec.kerberos.krb5_conf import AgentKrb5Conf
from credspec.lab.domain import Lab
from support.agent.agent_process import AgentProcess

LIVING = 1
OTHER = 2
MANY = 60


@pytest.fixture
def agent(lab: Lab, krb5_conf: AgentKrb5Conf, tmp_path: Path) -> Iterator[AgentProcess]:
    found = AgentProcess(lab, tmp_path)
    yield found
    found.close()


def principal_of(path: Path) -> str:
    """Read a credential cache to its end as an application would."""
    context = krb5.init_context()
    cache = krb5.cc_resolve(context, f"FILE:{path}".encode())
    tickets = [credentials.server.name for credentials in cache]
    assert tickets == [b"krbtgt/EXAMPLE.TEST@EXAMPLE.TEST"]
    return (krb5.cc_get_principal(context, cache).name or b"").decode()


def leftovers(agent: AgentProcess) -> list[str]:
    """Files that neither a lease nor the agent itself has a use for."""
    known = {"krb5cc", "krb5.conf", "agent.sock"}
    journal = re.compile(r"[0-9a-f]{32}\.json")
    return [
        str(path)
        for path in agent.run_directory.rglob("*")
        if not path.is_dir() and path.name not in known and not journal.fullmatch(path.name)
    ]


def crash_everywhere(
    agent: AgentProcess,
    before: Callable[[], None],
    operation: Callable[[], object],
    shim: Callable[[bool], None],
    after: Callable[[bool], None],
) -> list[str]:
    """Return the points; `shim` and, with the next run up, `after` learn if it came to its end."""
    agent.start(crash_at=1)
    for at in range(1, MANY):
        before()
        agent.arm()
        try:
            operation()
            ended = True
            agent.end()
        except AgentUnreachableError:
            ended = False
            assert agent.process is not None
            assert agent.process.wait(60) == -9
            agent.process = None
        # What a container has is whole at any time, agent or not.
        cache = agent.lease_directory(LIVING) / "krb5cc"
        if cache.exists():
            assert principal_of(cache) == "WebApp01$@EXAMPLE.TEST"
        shim(ended)
        agent.start(crash_at=at + 1)
        after(ended)
        if ended:
            return re.findall(r"^CRASH (.*)$", agent.log.read_text(), re.MULTILINE)
    raise AssertionError("it never came to an end")


def held(agent: AgentProcess) -> list[str]:
    """Return the containers with leases; nothing else may be left."""
    containers = agent.lease_containers()
    assert leftovers(agent) == []
    records = list((agent.run_directory / "journal").iterdir())
    assert len(records) == len(containers)
    return containers


def shim_of(agent: AgentProcess) -> Callable[[bool], None]:
    """The shim that got no answer runs no container, and unmounts."""

    def shim(ended: bool) -> None:
        if not ended:
            agent.unmount(OTHER)

    return shim


def test_while_a_lease_is_made(agent: AgentProcess) -> None:
    def check(ended: bool) -> None:
        assert held(agent) == (["container2"] if ended else [])

    points = crash_everywhere(
        agent, lambda: agent.mount(OTHER), lambda: agent.put(OTHER), shim_of(agent), check
    )
    assert len(points) > 8, points


def test_while_a_lease_is_made_and_the_shim_dies_too(agent: AgentProcess) -> None:
    """Nobody unmounts: what is not ready is not adopted, and its tickets are wiped."""

    def check(ended: bool) -> None:
        containers = held(agent)
        directory = agent.lease_directory(OTHER)
        if containers == []:
            assert list(directory.iterdir()) == []
        else:
            assert principal_of(directory / "krb5cc") == "WebApp01$@EXAMPLE.TEST"
            agent.delete(OTHER)
        agent.unmount(OTHER)

    crash_everywhere(
        agent, lambda: agent.mount(OTHER), lambda: agent.put(OTHER), lambda _: None, check
    )


def test_while_a_ticket_is_replaced(agent: AgentProcess) -> None:
    """A second lease after a restart makes the agent replace the first one's ticket."""
    agent.start()
    agent.mount(LIVING)
    agent.put(LIVING)
    agent.end()

    def check(ended: bool) -> None:
        assert held(agent) == (["container1", "container2"] if ended else ["container1"])
        assert principal_of(agent.lease_directory(LIVING) / "krb5cc") == "WebApp01$@EXAMPLE.TEST"

    points = crash_everywhere(
        agent, lambda: agent.mount(OTHER), lambda: agent.put(OTHER), shim_of(agent), check
    )
    assert len(points) > 15, points


def test_while_a_lease_is_released(agent: AgentProcess) -> None:
    def before() -> None:
        agent.mount(LIVING)
        agent.put(LIVING)

    def check(ended: bool) -> None:
        assert held(agent) == []

    # The shim unmounts whatever the agent says.
    points = crash_everywhere(
        agent,
        before,
        lambda: agent.delete(LIVING),
        lambda _: agent.unmount(LIVING),
        check,
    )
    assert len(points) >= 3, points


def test_killed_with_containers_alive_and_dead(agent: AgentProcess) -> None:
    agent.start()
    for number in (LIVING, OTHER):
        agent.mount(number)
        agent.put(number)
    agent.end(9)
    subprocess.run(["umount", "-l", str(agent.lease_directory(OTHER))], check=True)
    agent._mounted.remove(agent.lease_directory(OTHER))
    agent.start()
    assert held(agent) == ["container1"]
