"""The main job with Docker 26 or newer, whose API takes annotations, and a newer Python."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from credspec.api_client import AgentClient
from credspec.setup.docker import DockerSetup
from support.engines.folder_engine import FolderDockerEngine, ReleaseFolder

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


OPTION = "credentialspec=file://WebApp01.json"
BODY = {
    "Image": IMAGE,
    "Cmd": ["sleep", "60"],
    "Labels": {"credspec.dev/mode": "0440"},
    "HostConfig": {"SecurityOpt": [OPTION]},
}


def test_the_carrier_is_an_annotation(host, engine: FolderDockerEngine) -> None:
    """Asked as a client of today asks; an older client's version of the API has no annotations."""
    # HTTP and JSON on a Unix socket, as Docker's.
    api, dockerd = AgentClient(host.config.gateway_socket), AgentClient(engine.socket)
    api.request("POST", "/v1.45/containers/create?name=a1", BODY)
    try:
        api.request("POST", "/v1.45/containers/a1/start")
        found = dockerd.get("/v1.45/containers/a1/json")
        assert found["HostConfig"]["Annotations"] == {
            "credspec.dev/spec": "file://WebApp01.json",
            "credspec.dev/mode": "0440",
        }
        assert not [e for e in found["Config"]["Env"] if e.startswith("CREDSPEC=")]
        assert "WebApp01$" in host.shell("docker exec a1 klist").stdout
    finally:
        engine.docker("rm", "-f", "a1")


@pytest.mark.parametrize("first", ["/v1.45", "/v1.41", ""])
@pytest.mark.parametrize("second", ["/v1.25", "/v1.43", ""])
def test_a_container_made_from_inspect_keeps_its_identity(
    host, engine: FolderDockerEngine, first: str, second: str
) -> None:
    """As Watchtower does, simulated: its default is version 1.25, which drops annotations."""
    api = AgentClient(host.config.gateway_socket)
    api.request("POST", f"{first}/containers/create?name=a1", BODY)
    try:
        shown = api.get(f"{second}/containers/a1/json")
        for _ in range(2):
            config = shown["HostConfig"]
            assert (config["SecurityOpt"], config["Runtime"]) == ([OPTION], "runc")
            assert not config.get("Annotations")
            assert not config.get("Tmpfs")
            variables = shown["Config"]["Env"]
            assert not [e for e in variables if e.startswith(("CREDSPEC", "KRB5"))]
            engine.docker("rm", "-f", "a1")
            body = {**shown["Config"], "HostConfig": config}
            api.request("POST", f"{second}/containers/create?name=a1", body)
            api.request("POST", f"{second}/containers/a1/start")
            assert "WebApp01$" in host.shell("docker exec a1 klist").stdout
            shown = api.get(f"{second}/containers/a1/json")
        assert "credspec.dev/spec" not in str(api.get("/containers/json?all=1"))
    finally:
        engine.docker("rm", "-f", "a1")


def test_an_annotation_in_a_version_that_drops_it_counts(host, engine: FolderDockerEngine) -> None:
    """As a tool sends it that has it from dockerd itself, in a newer version."""
    api = AgentClient(host.config.gateway_socket)
    annotations = {"credspec.dev/spec": "file://WebApp01.json"}
    config = {"Runtime": "credspec", "Annotations": annotations}
    api.request("POST", "/v1.41/containers/create?name=a1", BODY | {"HostConfig": config})
    try:
        api.request("POST", "/v1.41/containers/a1/start")
        assert "WebApp01$" in host.shell("docker exec a1 klist").stdout
        assert api.get("/containers/a1/json")["HostConfig"]["Annotations"] == annotations
    finally:
        engine.docker("rm", "-f", "a1")


def test_a_committed_image_starts_under_our_runtime(host, engine: FolderDockerEngine) -> None:
    """As on a host where it is the default."""
    for name, version in (("a1", "/v1.45"), ("a2", "/v1.41")):
        api = AgentClient(host.config.gateway_socket)
        api.request("POST", f"{version}/containers/create?name={name}", BODY)
        try:
            committed = host.shell(f"docker commit {name} committed")
            assert committed.returncode == 0, committed.stderr
            ran = host.shell("docker run --rm --network none --runtime credspec committed env")
            assert ran.returncode == 0, ran.stderr
            assert "KRB5" not in ran.stdout
            assert "CREDSPEC" not in ran.stdout
            with_option = host.shell(f"{RUN} committed klist")
            assert "WebApp01$" in with_option.stdout, with_option.stderr
        finally:
            engine.docker("rm", "-f", name)


def test_a_container_without_a_spec_but_set_up_for_tickets_is_refused(
    host, engine: FolderDockerEngine
) -> None:
    line = "docker run --rm --network none --runtime credspec"
    variable = "-e KRB5CCNAME=FILE:/run/credspec/krb5cc"
    assert "spec-missing" in host.shell(f"{line} {variable} {IMAGE} env").stderr
    direct = host.shell(
        f"docker -H unix://{engine.socket} run --rm --network none {variable} "
        f"--runtime credspec {IMAGE} env"
    )
    assert "spec-missing" in direct.stderr, "by the runtime, too"
    ran = host.shell(f"{line} -e KRB5CCNAME=FILE:/tmp/mine {IMAGE} env")
    assert ran.returncode == 0, ran.stderr


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
