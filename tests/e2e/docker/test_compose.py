"""Compose through the gateway: the old one in Python, and v2, the docker client's plug-in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.engines.compose_plugin import compose_plugin
from support.engines.docker_gateway import Daemon, Docker, carried, docker, kept
from support.machine.pseudo_terminal import terminal

SERVICE = """
services:
  web:
    image: tiny
    network_mode: none
    command: sh -c 'trap "exit 0" TERM; echo hello; while true; do sleep 0.1; done'
    {}
"""
OPTION = 'security_opt: ["credentialspec=file://{}"]'
LABEL = "labels: {credspec.dev/owner: '1000:1000'}"
KEY = "credential_spec: {file: www.json}"


class Project:
    """A directory with a Compose file of one service, and how Compose is called in it."""

    def __init__(self, argv: list[str], **options: Any) -> None:
        self.argv, self.options = argv, options

    def write(self, setting: str) -> None:
        path: Path = self.options["cwd"] / "compose.yaml"
        path.write_text(SERVICE.format(setting))

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        settings = {"capture_output": True, "text": True, "timeout": 120, **self.options}
        return subprocess.run([*self.argv, *arguments], check=False, **settings)


def commands() -> list[str]:
    """Return the ways to call Compose; where Debian has v2 the old one's name is the plug-in's."""
    old = shutil.which("docker-compose")
    is_python = old is not None and b"python" in Path(old).read_bytes()[:80]
    return ["docker compose", *(["docker-compose"] if is_python else [])]


@pytest.fixture(scope="module")
def client_directory(host_mounts: int) -> Iterator[Path]:
    """A configuration of the docker client that has Compose v2 as a plug-in."""
    with tempfile.TemporaryDirectory(prefix="credspec-compose-", dir="/var/tmp") as name:
        plugins = Path(name) / "client" / "cli-plugins"
        plugins.mkdir(parents=True)
        plugin = compose_plugin(Path(name), host_mounts)
        (plugins / "docker-compose").symlink_to(plugin)
        yield plugins.parent


@pytest.fixture(params=commands())
def compose(
    request: pytest.FixtureRequest, gateway_socket: Path, client_directory: Path, tmp_path: Path
) -> Project:
    argv = request.param.split()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DOCKER_", "COMPOSE_"))}
    environment["DOCKER_HOST"] = f"unix://{gateway_socket}"
    environment["DOCKER_CONFIG"] = str(client_directory)
    return Project(argv, cwd=tmp_path, env=environment)


def container(compose: Project, daemon: Daemon) -> dict[str, Any]:
    (name,) = compose("ps", "-q", "web").stdout.split()
    return kept(daemon, name)


def test_up_logs_exec_and_down(compose: Project, gateway: Docker, daemon: Daemon) -> None:
    compose.write(f"{OPTION.format('www.json')}\n    {LABEL}")
    up = compose("up", "-d")
    assert up.returncode == 0, up.stderr
    created = container(compose, daemon)
    assert created["HostConfig"]["Runtime"] == "credspec"
    assert carried(created) == "file://www.json"
    assert carried(created, "owner") == "1000:1000"
    inside = compose("exec", "-T", "web", "env")
    assert inside.returncode == 0, inside.stderr
    assert "KRB5CCNAME=/run/credspec/krb5cc" in inside.stdout.splitlines()
    assert compose("exec", "-T", "web", "sh", "-c", "exit 9").returncode == 9
    again = compose("up", "-d")
    assert again.returncode == 0, again.stderr
    assert container(compose, daemon)["Id"] == created["Id"], "it is up to date"
    end = time.monotonic() + 60
    while "hello" not in (shown := compose("logs").stdout):
        assert time.monotonic() < end, shown
        time.sleep(0.1)
    assert compose("down").returncode == 0
    assert docker(daemon.socket, "ps", "-aq").stdout == ""


def test_the_clients_context_is_enough(
    compose: Project, gateway: Docker, daemon: Daemon, gateway_socket: Path
) -> None:
    del gateway
    environment: dict[str, str] = compose.options["env"]
    del environment["DOCKER_HOST"]

    def context(*arguments: str) -> None:
        subprocess.run(["docker", "context", *arguments], env=environment, check=True)

    context("create", "credspec", f"--docker=host=unix://{gateway_socket}")
    context("use", "credspec")
    try:
        compose.write(OPTION.format("www.json"))
        up = compose("up", "-d")
        assert up.returncode == 0, up.stderr
        assert carried(container(compose, daemon)) == "file://www.json"
    finally:
        context("use", "default")
        context("rm", "credspec")


def test_exec_has_a_terminal(compose: Project, gateway: Docker) -> None:
    compose.write(OPTION.format("www.json"))
    assert compose("up", "-d").returncode == 0
    with terminal([*compose.argv, "exec", "web", "sh"], **compose.options) as tty:
        tty.ask_until("echo $((40 + 2)) $(tty)\n", "42 /dev/pts/")
        tty.wait_for("# ")
        tty.type("exit 8\n")
        assert tty.exit_status() == 8


def test_up_attached_shows_the_output_and_ctrl_c_stops_the_containers(
    compose: Project, gateway: Docker, daemon: Daemon
) -> None:
    compose.write(OPTION.format("www.json"))
    with terminal([*compose.argv, "up"], **compose.options) as tty:
        tty.wait_for("hello")
        created = container(compose, daemon)
        assert created["State"]["Running"]
        assert carried(created) == "file://www.json"
        tty.type("\x03")
        tty.exit_status()
    state = json.loads(gateway("inspect", created["Id"]).stdout)[0]["State"]
    assert state["Status"] == "exited"
    # Its trap answered SIGTERM; or Compose, which may see the key twice, killed it.
    assert state["ExitCode"] in {0, 137}


def test_a_bad_reference_is_refused_in_the_same_words(
    compose: Project, gateway: Docker, specs: Path
) -> None:
    compose.write(OPTION.format("none.json"))
    up = compose("up", "-d")
    assert up.returncode != 0
    text = f"failed to load credential spec: open {specs}/none.json: no such file or directory"
    assert text in up.stderr
    assert gateway("ps", "-aq").stdout == ""


def test_composes_own_key_does_not_work(compose: Project, gateway: Docker, daemon: Daemon) -> None:
    compose.write(KEY)
    up = compose("up", "-d")
    if compose.argv == ["docker-compose"]:
        # 1.29 makes the option of it, then breaks over its own work before it asks the daemon.
        assert up.returncode != 0
        assert "'str' object has no attribute 'value'" in up.stderr
        assert gateway("ps", "-aq").stdout == ""
    else:
        assert up.returncode == 0, up.stderr
        created = container(compose, daemon)
        assert created["HostConfig"]["Runtime"] == "runc"
        assert carried(created) is None, "v2 sends nothing of it"
