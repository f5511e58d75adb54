"""dockerd of a user without privileges, and the gateway that the user runs in front of it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.agent.agent_process import BIN, AgentProcess, as_user
from support.engines.docker_gateway import wait_for
from support.engines.rootless_engines import FIRST_ID, USER, RootlessDocker

IMAGE = "kerberos-client"
OPTION = "--security-opt=credentialspec=file://one.json"
CARRIER = ("--runtime=credspec", "-e", "CREDSPEC=file://one.json", "--tmpfs=/run/credspec")
DEFAULT = "Default principal: WebApp01$@EXAMPLE.TEST"


@pytest.fixture(scope="module")
def running(users_agent: AgentProcess, client_image: bytes) -> Iterator[RootlessDocker]:
    made = RootlessDocker(users_agent.run_directory)
    try:
        made.start()
        imported = made.docker("import", "-", IMAGE, data=client_image)
        assert imported.returncode == 0, imported.stderr
        with users_gateway(made, users_agent):
            yield made
    finally:
        made.close()


@contextmanager
def users_gateway(engine: RootlessDocker, agent: AgentProcess) -> Iterator[None]:
    places = ["--listen", str(engine.gateway_socket), "--upstream", str(engine.socket)]
    places += ["--spec-directory", str(agent.directory / "specs")]
    with engine.log.open("ab") as log:
        process = subprocess.Popen(
            as_user(USER.pw_name, [str(BIN / "credspec"), "docker-gateway", *places]),
            env=engine.host.environment,
            stdout=log,
            stderr=log,
        )
    try:
        wait_for(engine.gateway_socket, process, log_file=engine.log)
        yield
    finally:
        process.terminate()
        assert process.wait(60) == 0


@pytest.fixture
def engine(running: RootlessDocker, users_agent: AgentProcess) -> Iterator[RootlessDocker]:
    yield running
    left = running.docker("ps", "-aq").stdout.split()
    if left:
        running.docker("rm", "-f", *left)
    end = time.monotonic() + 60
    while (users_agent.lease_containers() or running.host.leases()) and time.monotonic() < end:
        time.sleep(0.1)
    assert (users_agent.lease_containers(), running.host.leases()) == ([], [])


def test_the_option_through_the_users_own_gateway(engine: RootlessDocker) -> None:
    shown = engine.docker("run", "--rm", "--network=none", OPTION, IMAGE, "klist", gateway=True)
    assert DEFAULT in shown.stdout, shown.stderr
    # dockerd's socket is a subordinate group's, to which the user cannot give its own.
    assert engine.gateway_socket.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("user", "owner"), [("0", USER.pw_uid), ("1000", FIRST_ID + 999)])
def test_tickets_belong_to_the_mapped_user(engine: RootlessDocker, user: str, owner: int) -> None:
    options = ["--name=u1", "--network=none", f"--user={user}", *CARRIER]
    started = engine.docker("run", "-d", *options, IMAGE, "sh", "-c", "klist; sleep 600")
    assert started.returncode == 0, started.stderr
    [lease] = engine.host.leases()
    assert {path.stat().st_uid for path in [lease, *lease.iterdir()]} == {owner}
    end = time.monotonic() + 60
    while DEFAULT not in (shown := engine.docker("logs", "u1")).stdout and time.monotonic() < end:
        time.sleep(0.1)
    assert DEFAULT in shown.stdout, shown.stderr


def test_the_agent_is_the_kdc(engine: RootlessDocker, users_agent: AgentProcess) -> None:
    """There is no way back into the network that the shim comes from: it is not the user's.

    For that reason this dockerd itself has no network "host" at two of three of its starts; Podman
    is tested with it.
    """
    dc = users_agent.lab.dc_host
    labels = (
        "--label=credspec.dev/tickets=broker",
        "--label=credspec.dev/services=ldap/*.example.test",
    )
    line = f"kvno ldap/{dc} && ! kvno cifs/{dc}"
    options = ("--rm", "--network=none", OPTION, *labels)
    shown = engine.docker("run", *options, IMAGE, "sh", "-c", line, gateway=True)
    assert shown.returncode == 0, shown.stderr
    assert "KDC policy rejects request" in shown.stderr


def test_the_lease_ends_with_the_container(
    engine: RootlessDocker, users_agent: AgentProcess
) -> None:
    options = ["-d", "--name=s1", "--network=none", *CARRIER]
    assert engine.docker("run", *options, IMAGE, "sleep", "600").returncode == 0
    assert len(users_agent.lease_containers()) == 1
    assert engine.docker("restart", "-t", "0", "s1").returncode == 0
    assert len(engine.host.leases()) == 1
    engine.docker("kill", "s1")
    end = time.monotonic() + 60
    while engine.host.leases() and time.monotonic() < end:
        time.sleep(0.1)
    assert (users_agent.lease_containers(), engine.host.leases()) == ([], [])


def test_a_refusal_is_shown_with_its_reason(engine: RootlessDocker) -> None:
    wanted = [o.replace("one.json", "nothing.json") for o in CARRIER]
    shown = engine.docker("run", "--rm", "--network=none", *wanted, IMAGE, "klist")
    assert shown.returncode != 0
    assert "nothing.json" in shown.stderr
