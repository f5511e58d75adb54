"""Docker's SDK and Testcontainers (Python and Java), and the request of Nomad's docker driver.

DOCKER_HOST, or Nomad's `endpoint`, is all that tells them of the gateway.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from support.engines.client_programs import PROGRAMS, SOURCES, client_program

IMAGE = "kerberos-client:latest"
OPTION = "credentialspec=file://WebApp01.json"
PRINCIPAL = "Default principal: WebApp01$@EXAMPLE.TEST"


@pytest.fixture(autouse=True)
def docker_host(host: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{host.config.gateway_socket}")
    # Its helper that removes what a test leaves is an image of a registry.
    monkeypatch.setenv("TESTCONTAINERS_RYUK_DISABLED", "true")
    # In a container it would find the host by another image of a registry.
    monkeypatch.setenv("TESTCONTAINERS_HOST_OVERRIDE", "localhost")
    yield
    assert host.leases() == []


def test_dockers_sdk(host: Any) -> None:
    import docker

    with closing(docker.from_env()) as client:
        settings = {"security_opt": [OPTION], "network_mode": "none"}
        shown = client.containers.run(IMAGE, "klist", remove=True, **settings)
        assert PRINCIPAL in shown.decode()
        container = client.containers.run(IMAGE, "sleep 1000", detach=True, **settings)
        try:
            assert container.attrs["HostConfig"]["SecurityOpt"] == [OPTION]
            assert PRINCIPAL in container.exec_run("klist").output.decode()
        finally:
            container.remove(force=True)


def test_dockers_sdk_shows_the_reason(host: Any) -> None:
    import docker

    with closing(docker.from_env()) as client:
        wrong = {"security_opt": ["credentialspec=file://missing.json"], "network_mode": "none"}
        with pytest.raises(docker.errors.APIError, match="no such file or directory"):
            client.containers.run(IMAGE, "klist", **wrong)


def test_testcontainers(host: Any) -> None:
    from testcontainers.core.container import DockerContainer

    wanted = DockerContainer(IMAGE).with_command("sleep 1000")
    with wanted.with_kwargs(security_opt=[OPTION], network_mode="none") as container:
        assert PRINCIPAL in container.exec("klist").output.decode()


def test_testcontainers_for_java(host: Any) -> None:
    jars = PROGRAMS / "java"
    assert jars.is_dir(), "make install puts them there"
    command = ["java", "-cp", f"{jars}/*", str(SOURCES / "java/Klist.java")]
    shown = subprocess.run([*command, OPTION], capture_output=True, text=True, check=False)
    assert PRINCIPAL in shown.stdout, shown.stderr
    wrong = subprocess.run(
        [*command, OPTION.replace("WebApp01", "missing")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert wrong.returncode != 0
    assert "no such file or directory" in wrong.stderr


def nomad_request(host: Any, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Make a container with a task's directories as Nomad's docker driver does."""
    for name in ("alloc", "local", "secrets"):
        (directory / name).mkdir(exist_ok=True)
    endpoint = f"unix://{host.config.gateway_socket}"
    command = [client_program("nomad_request"), endpoint, IMAGE, directory, *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "DOCKER_HOST"}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_the_request_of_nomads_docker_driver(host: Any, tmp_path: Path) -> None:
    shown = nomad_request(host, tmp_path, OPTION, "sh", "-c", "klist; touch /local/written")
    assert PRINCIPAL in shown.stdout, shown.stderr
    assert shown.returncode == 0
    assert (tmp_path / "local/written").exists()


def test_the_request_of_nomads_docker_driver_is_refused(host: Any, tmp_path: Path) -> None:
    shown = nomad_request(host, tmp_path, OPTION.replace("WebApp01", "missing"), "klist")
    assert shown.returncode == 1
    assert "no such file or directory" in shown.stderr
