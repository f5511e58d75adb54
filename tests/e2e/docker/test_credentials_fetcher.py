"""A container as the ECS agent starts one: a lease by gRPC, its directory mounted read-only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.credentials_fetcher.fetcher_agent import FetcherAgent

KRBDIR = "/var/credentials-fetcher/krbdir"


@pytest.fixture
def agent(host: Any, tmp_path: Path) -> Iterator[FetcherAgent]:
    running = FetcherAgent(host.lab, tmp_path)
    try:
        running.start()
        yield running
    finally:
        running.close()


def test_a_task_of_ecs(host: Any, agent: FetcherAgent) -> None:
    made = agent.peer.call("AddKerberosLease", credspec_contents=[agent.spec])
    [directory] = made.created_kerberos_file_paths
    options = (
        f"-v {Path(directory).parent}:{KRBDIR}:ro "
        f"-e KRB5CCNAME=FILE:{KRBDIR}/WebApp01/krb5cc -e KRB5_CONFIG={KRBDIR}/WebApp01/krb5.conf"
    )
    started = host.shell(f"docker run -d --name task {options} kerberos-client sleep 600")
    assert started.returncode == 0, started.stderr
    whoami = f"docker exec task ldapwhoami -Q -H ldap://{host.lab.dc_host}"
    shown = host.shell(whoami)
    assert shown.stdout.lower().strip() == "u:example\\webapp01$", shown.stderr
    assert "Read-only" in host.shell(f"docker exec task touch {KRBDIR}/x").stderr
    # A restart of the agent is nothing to the task.
    agent.end()
    assert "webapp01" in host.shell(whoami).stdout.lower()
    agent.start()
    agent.peer.call("DeleteKerberosLease", lease_id=made.lease_id)
    assert "webapp01" not in host.shell(whoami).stdout.lower()
    host.shell("docker rm -f task")
    assert agent.nothing_is_left()
