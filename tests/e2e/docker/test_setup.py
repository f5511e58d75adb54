"""``credspec setup docker`` at a real dockerd that reads its configuration again."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engines.docker_gateway import (
    Daemon,
    credspec,
    docker,
    running_daemon,
)

ORIGINAL = b'{"log-level":"warn",  "shutdown-timeout": 5}\r\n'


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    (tmp_path / "daemon.json").write_bytes(ORIGINAL)
    with running_daemon(tmp_path, f"--config-file={tmp_path}/daemon.json") as running:
        yield running


def setup(daemon: Daemon, *options: str) -> subprocess.CompletedProcess[str]:
    places = [f"--daemon-config={daemon.config}"]
    places += [f"--launcher-directory={daemon.directory}/libexec"]
    places += [f"--gateway-socket={daemon.directory}/gateway.sock"]
    variables = {"DOCKER_CONFIG": f"{daemon.directory}/client"}
    result = credspec("setup", "docker", *places, *options, **variables)
    assert result.returncode == 0, result.stderr
    return result


def runtimes(daemon: Daemon) -> tuple[dict[str, dict[str, str]], str]:
    info = json.loads(docker(daemon.socket, "info", "--format", "{{json .}}").stdout)
    return info["Runtimes"], info["DefaultRuntime"]


def contexts(daemon: Daemon) -> list[str]:
    return docker(daemon.socket, "context", "ls", "-q").stdout.split()


def test_there_and_back(daemon: Daemon) -> None:
    launcher = daemon.directory / "libexec/credspec-runtime"
    assert "dry run" in setup(daemon, "--dry-run").stdout
    assert daemon.config.read_bytes() == ORIGINAL

    shown = setup(daemon, "--set-as-default")
    assert "systemctl reload docker" in shown.stderr
    daemon.reload()
    known, default = runtimes(daemon)
    assert known["credspec"]["path"] == str(launcher)
    assert default == "credspec"
    assert "credspec" in contexts(daemon)
    version = subprocess.run([launcher, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("runc version")
    assert setup(daemon, "--set-as-default").stdout == "nothing to change\n"

    undone = json.loads(setup(daemon, "--undo", "--output=json").stdout)
    assert len(undone["changes"]) == 3
    assert "restart" in undone["next"], "dockerd keeps a runtime when it only reloads"
    assert daemon.config.read_bytes() == ORIGINAL
    assert not launcher.parent.exists()
    assert "credspec" not in contexts(daemon)
    assert setup(daemon, "--undo").stdout == "nothing to change\n"

    daemon.stop()
    daemon.start(f"--config-file={daemon.config}")
    known, default = runtimes(daemon)
    assert "credspec" not in known
    assert default == "runc"
