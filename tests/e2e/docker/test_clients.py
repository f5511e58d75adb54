"""Docker's SDK for Python and Testcontainers, as their own pages use them, by DOCKER_HOST alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

IMAGE = "kerberos-client:latest"
OPTION = "credentialspec=file://WebApp01.json"
PRINCIPAL = "Default principal: WebApp01$@EXAMPLE.TEST"


@pytest.fixture(autouse=True)
def docker_host(host: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{host.config.gateway_socket}")
    # Its helper that removes what a test leaves is an image of a registry.
    monkeypatch.setenv("TESTCONTAINERS_RYUK_DISABLED", "true")
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
