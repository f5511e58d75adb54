"""``credspec check`` on a host with Docker: as it is when all runs, and with each part gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from credspec.setup.docker import DockerSetup


def check(host: Any, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run the doctor on the host; return the exit status and what it found."""
    socket = f"--docker-socket={host.engine.socket}"
    line = " ".join(["credspec check WebApp01.json --output json", socket, *arguments])
    shown = host.shell(line)
    assert "Traceback" not in shown.stderr
    return shown.returncode, json.loads(shown.stdout)


def cause(found: dict[str, Any]) -> tuple[str, str]:
    first = found["first_cause"]
    return first["step"], first["problems"][0]["code"]


def test_all_is_well(host: Any) -> None:
    status, found = check(host)
    assert (status, found["ok"], found["first_cause"]) == (0, True, None)
    assert [step["step"] for step in found["steps"]][-3:] == ["agent", "runtime", "gateway"]
    assert {step["state"] for step in found["steps"]} == {"ok"}
    assert all(step["milliseconds"] >= 0 for step in found["steps"])


def test_what_is_printed_for_people(host: Any) -> None:
    shown = host.shell(f"credspec check WebApp01 --docker-socket={host.engine.socket}")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.endswith("\nAll is well.\n")
    assert "ok    ticket WebApp01: TGT of WebApp01$@EXAMPLE.TEST" in shown.stdout


def test_the_agent_is_gone(host: Any) -> None:
    host.stop("agent")
    try:
        status, found = check(host)
    finally:
        host.start("agent")
    assert status == 6
    assert cause(found) == ("agent", "agent-unreachable")


def test_the_gateway_is_gone(host: Any) -> None:
    host.stop("docker-gateway")
    try:
        status, found = check(host)
        assert (status, cause(found)) == (6, ("gateway", "gateway-unreachable"))
        assert "docker context use credspec" in found["first_cause"]["text"]
        assert check(host, "--directory-only")[0] == 0
    finally:
        host.start("docker-gateway", "--upstream", str(host.engine.socket))


def test_no_docker_is_no_failure(host: Any, tmp_path: Path) -> None:
    status, found = check(host, f"--docker-socket={tmp_path}/none")
    assert status == 0
    assert found["steps"][-1]["text"] == "not needed without Docker"


def test_dockerd_does_not_answer(host: Any) -> None:
    status, found = check(host, f"--docker-socket={host.lab.host_keytab}")
    assert (status, cause(found)) == (6, ("runtime", "dockerd-unreachable"))


@pytest.fixture
def setup(host: Any) -> DockerSetup:
    return DockerSetup(
        run_directory=host.config.run_directory,
        gateway_socket=host.config.gateway_socket,
        daemon_config=host.engine.daemon_config,
        launcher_directory=host.engine.directory / "libexec",
    )


def test_the_launcher_has_gone(host: Any, setup: DockerSetup) -> None:
    text = setup.launcher.read_bytes()
    setup.launcher.unlink()
    try:
        status, found = check(host)
    finally:
        setup.launcher.write_bytes(text)
        setup.launcher.chmod(0o755)
    assert (status, cause(found)) == (1, ("runtime", "runtime-missing"))


def test_the_runtime_is_not_registered(host: Any, setup: DockerSetup) -> None:
    setup.undo()
    host.engine.halt()
    host.engine.start()
    try:
        status, found = check(host)
    finally:
        setup.apply()
        host.engine.halt()
        host.engine.start()
        assert host.shell("docker context use credspec").returncode == 0
    assert (status, cause(found)) == (1, ("runtime", "runtime-not-registered"))
    assert "1722" in found["first_cause"]["text"]
    assert check(host)[0] == 0
