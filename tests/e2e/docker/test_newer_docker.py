"""The main job with Docker 26 or newer, whose API takes annotations, and a newer Python."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from folder_engine import FolderDockerEngine, ReleaseFolder

from credspec.agent.client import AgentClient
from credspec.runtimes.docker_setup import DockerSetup

IMAGE = "kerberos-client"


@pytest.fixture(scope="module")
def engine(host, newer_release: ReleaseFolder) -> Iterator[FolderDockerEngine]:
    running = FolderDockerEngine(host.lab.network.namespace, newer_release)
    # One dockerd at a time has the bridge.
    host.engine.halt()
    try:
        setup = DockerSetup(
            run_directory=host.config.run_directory,
            gateway_socket=host.config.gateway_socket,
            daemon_config=running.daemon_config,
            launcher_directory=running.directory / "libexec",
            context=None,
        )
        setup.apply()
        newer_release.use_own_python(setup.launcher)
        running.start()
        running.import_image(host.image, IMAGE)
        host.stop("docker-gateway")
        host.start("docker-gateway", "--upstream", str(running.socket))
        yield running
    finally:
        running.stop()
        host.engine.start()
        host.stop("docker-gateway")
        host.start("docker-gateway", "--upstream", str(host.engine.socket))


RUN = 'docker run --rm --security-opt "credentialspec=file://WebApp01.json"'


def test_it_is_docker_26_or_newer(engine: FolderDockerEngine) -> None:
    assert int(engine.version().removeprefix("Docker ").partition(".")[0]) >= 26


@pytest.mark.parametrize("user", ["", "--user 1000:1000"])
def test_the_domain_knows_the_container(host, engine: FolderDockerEngine, user: str) -> None:
    line = f"{RUN} {user} --dns {host.lab.dc_address} {IMAGE}"
    shown = host.shell(f"{line} ldapwhoami -Q -H ldap://{host.lab.dc_host}")
    assert shown.stdout == "u:EXAMPLE\\WebApp01$\n", shown.stderr


def test_the_carrier_is_an_annotation(host, engine: FolderDockerEngine) -> None:
    """Asked as a client of today asks; an older client's version of the API has no annotations."""
    api = AgentClient(host.config.gateway_socket)  # HTTP and JSON on a Unix socket, as Docker's
    option = "credentialspec=file://WebApp01.json"
    body = {"Image": IMAGE, "Cmd": ["sleep", "60"], "HostConfig": {"SecurityOpt": [option]}}
    api.request("POST", "/v1.45/containers/create?name=a1", body)
    try:
        api.request("POST", "/v1.45/containers/a1/start")
        found = api.get("/v1.45/containers/a1/json")
        assert found["HostConfig"]["Annotations"] == {"credspec.dev/spec": "file://WebApp01.json"}
        assert not [e for e in found["Config"]["Env"] if e.startswith("CREDSPEC=")]
        assert "WebApp01$" in host.shell("docker exec a1 klist").stdout
    finally:
        engine.docker("rm", "-f", "a1")


def test_a_refusal_reaches_the_user(host, engine: FolderDockerEngine) -> None:
    shown = host.shell(f'docker run --rm --security-opt "credentialspec=file://../x" {IMAGE} klist')
    assert "file:// path must be under" in shown.stderr
    text = (host.lab.specs_directory / "WebApp01.json").read_text()
    path = host.lab.specs_directory / "forbidden.json"
    path.write_text(text.replace("WebApp01", "Forbidden01"))
    shown = host.shell(
        f'docker run --rm --security-opt "credentialspec=file://forbidden.json" {IMAGE} klist'
    )
    assert "password-not-permitted" in shown.stderr
