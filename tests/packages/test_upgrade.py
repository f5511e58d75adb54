"""Upgrade and downgrade of the package while containers live."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from credspec.lab.client_image import write_client_image
from support.machine.package_machine import LEASES, NEXT_VERSION, PackageMachine, built

AGENT = "credspec-agent.service"
LIVING, MOST_SECONDS = 50, 5
RUN = (
    "docker --context credspec run --detach --network=none --name c$n "
    "--security-opt credentialspec=file://www.json kerberos-client sleep 99999"
)
# What must not change: which process it is, since when, and the bytes of its ticket.
STATES = "docker inspect --format '{{.Id}} {{.State.Pid}} {{.State.StartedAt}}' $(docker ps -q)"


@pytest.fixture
def host(boot: Callable[[], PackageMachine], packages: dict[str, Path]) -> PackageMachine:
    """A host with the package, Docker, an image and a spec."""
    found = boot()
    found.install(packages["credspec"])
    with (found.root / "srv/image.tar").open("wb") as file:
        write_client_image(file)
    found.run("systemctl", "start", "docker.service")
    found.run("docker", "import", "/srv/image.tar", "kerberos-client")
    found.run("credspec", "setup", "agent", "docker")
    found.run("credspec", "new", "WebApp01", "--path", "/etc/credspec/specs/www.json")
    return found


def containers(host: PackageMachine, count: int) -> None:
    """Start containers with tickets."""
    host.run("sh", "-ec", f"for n in $(seq {count}); do {RUN}; done")


def states(host: PackageMachine) -> list[str]:
    """Return what identifies each process and each ticket."""
    tickets = f"sha256sum {LEASES}/*/krb5cc"
    return sorted(host.run("sh", "-ec", f"{STATES}; {tickets}").stdout.splitlines())


def lease_count(host: PackageMachine) -> int:
    return len(json.loads(host.run("credspec", "status", "--output", "json").stdout)["leases"])


def test_an_upgrade_harms_none_of_fifty_living_containers(
    release: str, host: PackageMachine
) -> None:
    upgrade = built(release, version=NEXT_VERSION).packages["credspec"]
    containers(host, LIVING)
    before = states(host)
    assert len(before) == 2 * LIVING
    launcher = host.run("cat", "/usr/local/libexec/credspec/credspec-runtime").stdout
    pid = host.booted.show(AGENT, "MainPID")

    host.install(upgrade)
    assert NEXT_VERSION in host.run("credspec", "--version").stdout
    host.wait_until_active(AGENT)
    assert host.booted.show(AGENT, "MainPID") not in {pid, "0"}
    assert host.booted.show(AGENT, "NeedDaemonReload") == "no"
    stopped = int(host.booted.show(AGENT, "InactiveEnterTimestampMonotonic"))
    started = int(host.booted.show(AGENT, "ActiveEnterTimestampMonotonic"))
    print(f"agent back after {(started - stopped) / 1e6:.2f} s")  # noqa: T201 - a figure, no bound
    # On a machine that does nothing else, this is how long it is away.
    used = int(host.booted.show(AGENT, "CPUUsageNSec")) / 1e9
    print(f"its start took {used:.2f} s of processor time")  # noqa: T201
    assert used < MOST_SECONDS

    assert states(host) == before
    assert lease_count(host) == LIVING
    shown = host.run("docker", "exec", f"c{LIVING}", "klist").stdout
    assert "Default principal: WebApp01$@" in shown
    # The launcher and the lease ids of the first version go on to be good.
    assert host.run("cat", "/usr/local/libexec/credspec/credspec-runtime").stdout == launcher
    host.run("sh", "-ec", f"n=new; {RUN}; docker rm --force $(docker ps --quiet)")
    assert lease_count(host) == 0
    assert host.run("sh", "-c", f"ls {LEASES}").stdout == ""


def test_a_downgrade_keeps_leases_or_is_refused(
    release: str, host: PackageMachine, packages: dict[str, Path]
) -> None:
    """That the newer version's journal has another format is simulated."""
    host.install(built(release, version=NEXT_VERSION).packages["credspec"])
    containers(host, 2)
    before = states(host)
    host.install(packages["credspec"], options=("--allow-downgrades",))
    host.wait_until_active(AGENT)
    assert NEXT_VERSION not in host.run("credspec", "--version").stdout
    assert states(host) == before
    assert lease_count(host) == 2

    host.install(built(release, version=NEXT_VERSION).packages["credspec"])
    change = 'sed -i \'s/^{"format": [12],/{"format": 3,/\' /run/credspec/journal/*.json'
    host.run("sh", "-ec", change)
    refused = host.install(packages["credspec"], options=("--allow-downgrades",), status=100)
    assert "cannot read" in refused.stderr + refused.stdout
    assert NEXT_VERSION in host.run("credspec", "--version").stdout
    assert states(host) == before
    host.run("dpkg", "--audit")
