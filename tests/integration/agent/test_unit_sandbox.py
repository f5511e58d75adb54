"""What code in the agent or in the gateway could do: a probe in their place, under their units."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from credspec.setup.systemd import (
    AGENT_SOCKET,
    AGENT_UNIT,
    FETCHER_UNITS,
    GATEWAY_UNIT,
    SystemdSetup,
)
from support.engines.folder_engine import ReleaseFolder
from support.machine.booted_systemd import BootedSystemd

TOOLS = Path(__file__).parents[2] / "support/machine"
PROBE = TOOLS / "sandbox_probe.py"
KEPT = TOOLS / "kept_socket.py"
DROP_IN = """
[Service]
Type=exec
Restart=no
WatchdogSec=0
ExecStartPre=
ExecStart=
ExecStart={python} -S {probe} '{wanted}'
StandardOutput=append:/run/test/{name}.txt
StandardError=append:/run/test/{name}.txt
# The checkout may be below a directory that the unit hides.
BindReadOnlyPaths={probe}
"""
# Sockets of a host, of engines that are known and of one that nobody knows; on ways into all root's
# rights. `l` are listed before the service starts, `a` are made after.
SOCKETS = [
    *("l:/run/docker.sock", "l:/run/containerd/containerd.sock", "a:/run/containerd/s/1234"),
    *("l:/run/dbus/system_bus_socket", "a:/run/podman/podman.sock", "l:/run/crio/crio.sock"),
    *("a:/run/buildkit/buildkitd.sock", "a:/run/cri-dockerd.sock", "l:/run/k3s/containerd/c.sock"),
    *("a:/run/docker/plugins/x.sock", "l:/run/unheard/of.sock", "a:/run/unheard-of.sock"),
    *("l:/run/user/1000/podman/podman.sock", "a:/run/user/1000/bus", "a:/run/user/0/bus"),
    *("a:/run/user/0/systemd/private", "a:/run/user/1001/docker.sock", "l:/run/lock/x.sock"),
    *("l:/mnt/x/engine.sock", "l:@credspec-test-engine", "a:@credspec-test-shim/1"),
]
LISTENER = """
import os, socket, sys
kept = []
for name in sys.argv[1:]:
    kinds = (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET)
    for kind in kinds[: 1 if name.endswith((".sock", "bus", "private")) else 3]:
        made = socket.socket(socket.AF_UNIX, kind)
        path = name + ["", ".d", ".s"][kinds.index(kind)]
        if path.startswith("@"):
            path = chr(0) + path[1:]
        else:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        made.bind(path)
        if kind != socket.SOCK_DGRAM:
            made.listen(64)
        kept.append(made)
print("listening", flush=True)
sys.stdin.read()
"""
# Programs of root's that gave up their capabilities: their memory is theirs who have no more.
VICTIM = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "cat"]
DOCKER = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=true\n"
# What is mounted after a service has started: users log on, a container runs.
LATER = (
    "/run/user/1001",
    "/run/user/0",
    "/run/containerd/io.containerd.runtime.v2.task/k8s.io/1/rootfs",
)
CAPABILITIES = 0b11  # CAP_CHOWN, CAP_DAC_OVERRIDE
UNIX, INET, INET6 = 1, 2, 10
NOTIFY = "/run/systemd/notify"


@dataclass(frozen=True)
class System:
    """A booted systemd, and the Python that its services run."""

    booted: BootedSystemd
    python: str

    @contextmanager
    def running(self, *command: str) -> Iterator[IO[bytes]]:
        """Run a command beside the services, until the block ends; yields what it prints."""
        enter = ["nsenter", f"--target={self.booted.pid}", "--mount", "--pid", "--ipc"]
        with subprocess.Popen(
            [*enter, "--", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            yield process.stdout
            process.stdin.close()

    @contextmanager
    def listening(self, when: str) -> Iterator[None]:
        names = [name[2:] for name in SOCKETS if name.startswith(when)]
        with self.running(self.python, "-c", LISTENER, *names) as output:
            assert output.readline() == b"listening\n"
            yield

    def version(self) -> int:
        return int(self.booted.run("systemctl", "--version").stdout.split()[1])


@pytest.fixture(scope="module", params=["this release", "trixie"])
def system(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, host_mounts: int
) -> Iterator[System]:
    log = tmp_path_factory.mktemp("systemd") / "log"
    if request.param == "this release":
        booted = BootedSystemd(log)
        yield System(booted, sys.executable)
        booted.close()
        return
    packages = ("systemd", "libnss-systemd", "python3-minimal", "libpython3-stdlib", "util-linux")
    folder = ReleaseFolder(request.param, packages, host_mounts)
    try:
        folder.bootstrap()
        booted = BootedSystemd(log, folder.path, (TOOLS,))
        yield System(booted, "/usr/bin/python3")
        booted.close()
    finally:
        folder.close()


@pytest.fixture(scope="module")
def host(system: System) -> Iterator[System]:
    """A host on which much is to be reached, and much more comes while a service runs."""
    run = system.booted.run
    for command in (
        "mount -t tmpfs tmpfs /mnt",
        "mkdir -p /run/user /run/credspec-host /run/credspec/leases /run/credspec/journal",
        "mkdir -p /run/user/0 /run/user/1000 /run/containerd/io.containerd.runtime.v2.task",
        "mount -t tmpfs tmpfs /run/user/1000",
        "touch /run/credspec/agent.sock",
    ):
        assert run(*command.split()).returncode == 0, command
    with system.listening("l:"), system.running(*VICTIM):
        yield system


def write_unit(system: System, unit: str, text: str) -> None:
    path = Path("/etc/systemd/system", unit)
    assert system.booted.run("mkdir", "-p", str(path.parent)).returncode == 0
    assert system.booted.run("tee", str(path), given=text).returncode == 0


def probe(system: System, unit: str, wanted: dict[str, object]) -> list[str]:
    """Run the probe as a unit's program, and return what it could do."""
    name = unit.partition(".")[0]
    run = system.booted.run
    own = "/run/credspec"
    go = f"{own}/go"
    run("rm", "-f", go, f"/run/test/{name}.txt")
    text = DROP_IN.format(
        python=system.python,
        probe=PROBE,
        wanted=json.dumps({"wait": go, "capabilities": CAPABILITIES, **wanted}),
        name=name,
    )
    write_unit(system, f"{unit}.d/probe.conf", text)
    assert run("systemctl", "daemon-reload").returncode == 0
    started = run("systemctl", "start", unit)
    assert started.returncode == 0, started.stderr + run("systemctl", "status", unit).stdout
    assert run("systemctl", "is-active", unit).stdout == "active\n"
    # Only now, behind the service's back.
    for path in LATER:
        assert run("mkdir", "-p", path).returncode == 0
        assert run("mount", "-t", "tmpfs", "tmpfs", path).returncode == 0
    with system.listening("a:"):
        assert run("touch", go).returncode == 0
        while run("systemctl", "is-active", unit).stdout == "active\n":
            time.sleep(0.2)
    for path in LATER:
        assert run("umount", path).returncode == 0
    run("sh", "-c", "rm -rf /run/containerd/s /run/podman /run/buildkit /run/cri-dockerd.sock"
        " /run/docker /run/unheard-of.sock /run/user/1000/bus")  # fmt: skip
    lines = run("cat", f"/run/test/{name}.txt").stdout.splitlines()
    run("rm", "-r", f"/etc/systemd/system/{unit}.d/probe.conf")
    assert lines[-1:] == ["done"], lines
    assert lines[:1] == ["started"]
    seen = next(int(line.split()[1]) for line in lines if line.startswith("seen "))
    assert seen > (50 if "tops" in wanted else 5000)
    return [line for line in lines if not line.startswith(("started", "seen ", "done"))]


def test_what_a_service_without_protection_can_do(host: System) -> None:
    """The probe finds what there is to find."""
    text = "[Service]\nRuntimeDirectory=credspec\nRuntimeDirectoryPreserve=yes\nPrivateMounts=yes\n"
    write_unit(host, "plain.service", text)
    wanted = {"writable": ["/run/credspec"], "sockets": [], "families": [], "tops": ["/run"]}
    found = probe(host, "plain.service", wanted)
    kinds = {line.partition(":")[0] for line in found}
    assert kinds >= {"write", "socket", "call", "family", "process", "capability", "core"}
    for line in (
        "socket: /run/systemd/private",
        "socket: /run/docker.sock",
        "socket: @credspec-test-engine",
        "write: /run/systemd/system",
        "write: /run/lock",
        "write: /run/user/0",
    ):
        assert line in found, found


def plan_for(system: System, *, has_users: bool = False) -> SystemdSetup:
    """Return the set-up of this installation, or of one that needs nothing of this release."""
    hidden = None if system.python == sys.executable else frozenset[Path]()
    return SystemdSetup(program=Path("/usr/bin/true"), hidden=hidden, has_users=has_users)


def agent_units(system: System, *, has_users: bool = False) -> None:
    plan = plan_for(system, has_users=has_users)
    for unit in (AGENT_UNIT, AGENT_SOCKET):
        write_unit(system, unit, plan.text(unit))


def without_datagrams(lines: list[str]) -> list[str]:
    """Leave out what no unit can forbid: sending to datagram sockets, from half of a pair."""
    return [line for line in lines if not line.startswith("datagram: ")]


USERS = ["/run/user", "/run/user/1000", "/run/user/1001"]
TEMPORARY = ["/tmp", "/var/tmp"]  # noqa: S108 - the service has its own
AGENTS = ["/run/credspec", "/var/log/credspec", *TEMPORARY]


def test_code_in_the_agent(host: System) -> None:
    agent_units(host)
    wanted = {
        "writable": [*AGENTS, *USERS],
        "sockets": [],
        "families": [INET, INET6],
    }
    found = without_datagrams(probe(host, AGENT_UNIT, wanted))
    assert found == [], "\n".join(found)


def test_sockets_outlive_a_stop_of_the_agent(host: System) -> None:
    """With systemd 254 and later; until then they are kept over a restart only."""
    run = host.booted.run
    agent_units(host)
    text = DROP_IN.format(python=host.python, probe=KEPT, wanted="", name="kept")
    write_unit(host, f"{AGENT_UNIT}.d/kept.conf", text.replace("Type=exec", "Type=notify"))
    assert run("systemctl", "daemon-reload").returncode == 0
    for action in ("start", "restart", "stop", "start", "stop"):
        assert run("systemctl", action, AGENT_UNIT).returncode == 0
    first, restarted, again = map(str.split, run("cat", "/run/test/kept.txt").stdout.splitlines())
    assert first[0] == "made"
    assert restarted == ["kept", first[1]]
    assert (again == restarted) == (host.version() >= 254)
    run("rm", "-r", f"/etc/systemd/system/{AGENT_UNIT}.d/kept.conf")


@pytest.fixture
def fetchers_directory(host: System) -> Iterator[str]:
    """Where the mount point is; what is made there does not stay on the machine of the test."""
    path, run = "/var/credentials-fetcher", host.booted.run
    assert run("mkdir", path).returncode == 0
    assert run("mount", "-t", "tmpfs", "tmpfs", path).returncode == 0
    yield path
    run("systemctl", "stop", FETCHER_UNITS[0])
    assert run("umount", path).returncode == 0
    assert run("rmdir", path).returncode == 0


def test_code_in_the_agent_in_place_of_credentials_fetcher(
    host: System, fetchers_directory: str
) -> None:
    """Since gRPC needs Unix sockets, all but those without a path are out of sight."""
    agent_units(host)
    plan = plan_for(host)
    for unit in FETCHER_UNITS:
        write_unit(host, unit, plan.text(unit))
    wanted = {
        "writable": [*AGENTS, fetchers_directory],
        "sockets": [NOTIFY],
        "families": [UNIX, INET, INET6],
    }
    found = probe(host, AGENT_UNIT, wanted)
    assert [line for line in found if not line.startswith("socket: @")] == [], "\n".join(found)
    host.booted.run("rm", "-r", f"/etc/systemd/system/{FETCHER_UNITS[1]}")


def test_code_in_the_gateway(host: System) -> None:
    write_unit(host, "docker.service", DOCKER)
    plan = plan_for(host)
    write_unit(host, GATEWAY_UNIT, plan.text(GATEWAY_UNIT))
    wanted = {
        "writable": ["/run/credspec", *TEMPORARY],
        "sockets": ["/run/docker.sock", "/var/run/docker.sock", NOTIFY],
        "families": [UNIX],
    }
    found = probe(host, GATEWAY_UNIT, wanted)
    assert found == [], "\n".join(found)
