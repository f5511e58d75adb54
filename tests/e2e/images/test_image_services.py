"""The agent and the gateway as containers, by the commands of docs/images.md, on a joined host."""

from __future__ import annotations

import io
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from credspec.lab.client_image import write_client_image
from credspec.lab.domain import Lab
from credspec.service.process_safety import CAPABILITIES
from support.engines.image_archives import archive_of
from support.engines.image_host import ImageHost, documented, may_raise_limits

pytestmark = pytest.mark.timeout(1200)
SPEC = '--security-opt "credentialspec=file://www.json"'


@pytest.fixture(scope="module")
def machine(lab: Lab) -> Iterator[ImageHost]:
    found = ImageHost(lab)
    try:
        found.prepare()
        for image in ("agent", "gateway"):
            found.engine.docker("load", "--input", str(archive_of(image)))
        tar = io.BytesIO()
        write_client_image(tar)
        found.engine.import_image(tar.getvalue(), "kerberos-client")
        found.set_up()
        found.start("agent")
        found.start("gateway")
        made = found.run("\n".join(documented("Use them")[0].splitlines()[1:-1]))
        assert made.returncode == 0, made.stderr
        yield found
    finally:
        found.close()


def gone(machine: ImageHost) -> bool:
    end = time.monotonic() + 60
    while machine.leases() and time.monotonic() < end:
        time.sleep(0.2)
    return machine.leases() == []


def process_status(machine: ImageHost, container: str) -> dict[str, str]:
    """Return proc(5) of a container's first process, as the host sees it."""
    lines = Path("/proc", str(machine.state(container)["Pid"]), "status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_the_two_ordinary_commands(machine: ImageHost) -> None:
    command = documented("Use them")[0].splitlines()[-1]
    shown = machine.run(command.replace("IMAGE", "kerberos-client"), gateway=True)
    assert shown.returncode == 0, shown.stderr + machine.logs("credspec-agent")
    assert f"WebApp01$@{machine.lab.realm}" in shown.stdout
    assert gone(machine)


def test_the_agent_is_replaced_while_a_container_lives(machine: ImageHost) -> None:
    started = machine.run(
        f"docker run -d --name app {SPEC} kerberos-client sleep 600", gateway=True
    )
    assert started.returncode == 0, started.stderr
    try:
        for replace in (True, False):
            if replace:
                machine.engine.docker("rm", "-f", "credspec-agent")
                machine.start("agent")
            else:
                machine.engine.docker("restart", "credspec-agent")
                machine.wait_until_healthy("credspec-agent")
            assert len(machine.leases()) == 1
            shown = machine.run("docker exec app klist", gateway=True)
            assert f"WebApp01$@{machine.lab.realm}" in shown.stdout
        again = machine.run(f"docker run --rm {SPEC} kerberos-client klist", gateway=True)
        assert f"WebApp01$@{machine.lab.realm}" in again.stdout, again.stderr
        log = machine.logs("credspec-agent")
        assert "error" not in log.lower()
    finally:
        machine.engine.docker("rm", "-f", "app")
    assert gone(machine)


def test_the_agent_sees_whether_a_container_lives(machine: ImageHost) -> None:
    """Also if nobody tells it: its runtime's directory, and the process that is named there."""
    machine.run(f"docker run -d --name app {SPEC} kerberos-client sleep 600", gateway=True)
    try:
        (record,) = (machine.lab.run_directory / "journal").iterdir()
        state = json.loads(record.read_text())["runtime_state"]
        assert Path(state).is_relative_to(machine.runtime_states)
        program = (
            "import sys; from credspec.agent.leases.container_state import ContainerStates;"
            "states = ContainerStates();"
            "print(states._sees_all, *map(states.is_there, sys.argv[1:]))"
        )
        command = ["exec", "credspec-agent", "python", "-c", program, state, f"{state}-gone"]
        assert machine.engine.docker(*command).stdout == b"True True False\n"
    finally:
        machine.engine.docker("rm", "-f", "app")
    assert gone(machine)


def test_the_agents_process(machine: ImageHost) -> None:
    status = process_status(machine, "credspec-agent")
    wanted = sum(1 << number for number in CAPABILITIES.values())
    assert status["Uid"].split() == ["0"] * 4
    for name in ("CapEff", "CapPrm", "CapBnd"):
        assert int(status[name], 16) == wanted, name
    assert status["NoNewPrivs"] == "1"
    assert int(status["VmLck"].split()[0]) > 0 or not may_raise_limits()


def test_the_gateways_process(machine: ImageHost) -> None:
    status = process_status(machine, "credspec-gateway")
    assert status["Uid"].split() == ["65532"] * 4
    for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert status["NoNewPrivs"] == "1"
    socket = (machine.gateway_directory / "docker.sock").stat()
    assert socket.st_gid == machine.engine.socket.stat().st_gid
    assert socket.st_mode & 0o777 == 0o660


@pytest.mark.parametrize("container", ["credspec-agent", "credspec-gateway"])
def test_nothing_can_be_run_in_a_container_but_credspec_and_python(
    machine: ImageHost, container: str
) -> None:
    for command in ("sh", "/bin/sh", "bash", "ls", "cc", "apt-get", "dpkg", "pip"):
        done = machine.engine.docker("exec", container, command, check=False)
        assert done.returncode in {126, 127}, command
        assert (
            b"not found" in done.stdout + done.stderr
            or b"no such file" in done.stdout + done.stderr
        )
    done = machine.engine.docker("exec", container, "credspec", "--version")
    assert re.search(rb"credspec|0\.1", done.stdout)


def test_documented_questions_to_the_agent(machine: ImageHost) -> None:
    blocks = documented("Use them")[1:]
    commands = [line for block in blocks for line in block.splitlines()]
    assert len(commands) == 3
    for command in commands:
        shown = machine.run(command)
        if command.endswith(" check"):  # which looks at the host's engines, too
            assert "join" in shown.stdout, shown.stdout + shown.stderr
        else:
            assert shown.returncode == 0, shown.stdout + shown.stderr


def test_a_health_check_fails_where_nobody_answers(machine: ImageHost) -> None:
    command = ["python3", "-IS", "/usr/lib/credspec/healthcheck.py"]
    for arguments in (["/run/credspec/none.sock", "/healthz"], ["/run/credspec/agent.sock", "/no"]):
        done = machine.engine.docker("exec", "credspec-agent", *command, *arguments, check=False)
        assert done.returncode == 1, done.stdout


def test_nothing_is_written_outside_the_mounted_directories(machine: ImageHost) -> None:
    for container in ("credspec-agent", "credspec-gateway"):
        found = json.loads(machine.engine.docker("inspect", container).stdout)[0]
        mounted = [Path(mount["Destination"]) for mount in found["Mounts"]]
        for line in machine.engine.docker("diff", container).stdout.decode().splitlines():
            changed = Path(line[2:])  # a place to mount on, or a directory above it
            assert any(path.is_relative_to(changed) for path in mounted), line


def test_an_image_starts_by_itself_and_says_what_it_lacks(machine: ImageHost) -> None:
    """Without any option, the agent says in one line what is missing."""
    done = machine.run("docker run --rm --network none credspec-agent:0.1.0.dev0")
    assert done.returncode not in {0, 125, 126, 127}
    assert "host-keytab-missing" in done.stderr
    assert "Traceback" not in done.stderr


def test_podman_loads_the_archives() -> None:
    # Podman wants a short path for what it keeps while it runs.
    with tempfile.TemporaryDirectory(prefix="podman-", dir="/var/tmp") as directory:
        command = [
            "podman",
            f"--root={directory}/root",
            f"--runroot={directory}/run",
            "--storage-driver=vfs",
        ]
        for image in ("agent", "gateway"):
            done = subprocess.run(
                [*command, "load", "--input", str(archive_of(image))],
                capture_output=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
        subprocess.run([*command, "rmi", "--all", "--force"], capture_output=True, check=True)


def test_removed_as_documented(machine: ImageHost) -> None:
    """The last one: nothing is left of the set-up."""
    done = machine.undo()
    assert done.returncode == 0, done.stderr
    assert list(machine.libexec.iterdir()) == []
    assert "credspec" not in machine.engine.daemon_config.read_text()
    contexts = machine.engine.docker("context", "ls", "--quiet").stdout
    assert b"credspec" not in contexts
