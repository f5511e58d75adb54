"""A domain controller that is reached at another address from now on, under a running agent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from credspec.lab.domain import Lab
from support.agent.agent_process import AgentProcess
from support.domain.name_servers import Zone, host_of_localhost_alone, name_server
from support.domain.tcp_relay import TcpRelay, tcp_relay


@pytest.fixture
def relay(lab: Lab) -> Iterator[TcpRelay]:
    with tcp_relay(lab.dc_address, 88, 389) as found:
        yield found


@pytest.fixture
def zone(lab: Lab, relay: TcpRelay) -> Zone:
    return Zone(lab.dns_domain, {lab.dc_host: relay.address})


@pytest.fixture
def agent(lab: Lab, tmp_path: Path, zone: Zone) -> Iterator[AgentProcess]:
    with name_server(zone) as server:
        plan = host_of_localhost_alone(tmp_path, [server.address])
        found = AgentProcess(lab, tmp_path, plan=plan)
        try:
            found.start()
            yield found
        finally:
            found.close()


def lease(agent: AgentProcess, number: int) -> str:
    agent.mount(number)
    agent.put(number)
    return krb5_conf(agent, number)


def krb5_conf(agent: AgentProcess, number: int) -> str:
    return (agent.lease_directory(number) / "krb5.conf").read_text()


def test_living_leases_and_new_ones_are_told(
    lab: Lab, agent: AgentProcess, relay: TcpRelay, zone: Zone
) -> None:
    assert f"kdc = {relay.address}\n" in lease(agent, 1)
    time.sleep(6)  # what was checked just now is not checked again
    relay.close()
    zone.controllers[lab.dc_host] = lab.dc_address
    second = lease(agent, 2)
    assert relay.address not in second
    assert f"kdc = {lab.dc_address}\n" in second
    assert krb5_conf(agent, 1) == second


@pytest.mark.parametrize("restarted", [False, True])
def test_a_living_lease_is_told_without_anybody_asking(
    lab: Lab, agent: AgentProcess, relay: TcpRelay, zone: Zone, *, restarted: bool
) -> None:
    assert f"kdc = {relay.address}\n" in lease(agent, 1)
    if restarted:
        agent.end()
    relay.close()
    zone.controllers[lab.dc_host] = lab.dc_address
    if restarted:
        agent.start()
    end = time.monotonic() + 120
    while relay.address in krb5_conf(agent, 1):
        assert time.monotonic() < end
        time.sleep(0.2)
    assert f"kdc = {lab.dc_address}\n" in krb5_conf(agent, 1)
    assert (agent.lease_directory(1) / "krb5cc").exists()
