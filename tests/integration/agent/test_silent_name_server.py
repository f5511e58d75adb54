"""A host whose first name server is silent, and whose hosts file names nobody but localhost.

That is the usual host while one of two domain controllers is down. What must not wait is shown by
what is answered meanwhile, since a clock says little on a busy machine.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from credspec.errors import CredspecError
from credspec.lab.domain import Lab
from support.agent.agent_process import AgentProcess
from support.domain.name_servers import NameServer, host_of_localhost_alone, name_server, silence

TRANSPORTS = ("ldap", "ldaps")


@pytest.fixture
def silent() -> Iterator[NameServer]:
    with name_server(silence) as found:
        yield found


@pytest.fixture(params=TRANSPORTS)
def agent(
    request: pytest.FixtureRequest, lab: Lab, tmp_path: Path, silent: NameServer
) -> Iterator[AgentProcess]:
    transport = f'[ldap]\ntransport = "{request.param}"\nca_file = "{lab.directory}/ca.pem"\n'
    plan = host_of_localhost_alone(tmp_path, [silent.address, lab.dc_address])
    found = AgentProcess(lab, tmp_path, extra=transport, plan=plan)
    try:
        found.start()
        yield found
    finally:
        found.close()


def test_leases_are_granted_and_nothing_else_waits(agent: AgentProcess, silent: NameServer) -> None:
    answers: list[object] = []

    def lease() -> None:
        try:
            answers.append(agent.put(1)["container"])
        except CredspecError as error:
            answers.append(error)

    agent.mount(1)
    leasing = threading.Thread(target=lease)
    leasing.start()
    longest = 0.0
    while leasing.is_alive():
        asked = time.monotonic()
        agent.client.get("/healthz")
        longest = max(longest, time.monotonic() - asked)
    assert answers == ["container1"]
    # Of libc, one name server takes five seconds for each look-up.
    assert longest < 4
    # Nobody asked the silent server who this host is: libraries do, with the GIL held.
    assert socket.gethostname().lower() not in silent.questions
