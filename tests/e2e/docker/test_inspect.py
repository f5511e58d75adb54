"""What tools see of containers through the gateway, and what they make of it: a real dockerd."""

from __future__ import annotations

import json
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import pytest

from support.engines.docker_gateway import SAMPLE, Daemon, Docker, UnixConnection, carried, kept

OPTION = "credentialspec=file://www.json"
LABELS = {"credspec.dev/owner": "1000:1000", "app": "web"}
OURS = ("CREDSPEC", "KRB5")
# What dockerd 20.10 answers to, and the path without a version.
VERSIONS = ["/v1.25", "/v1.40", "/v1.41", ""]


class Api:
    """dockerd's API at a socket, as any client speaks it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, method: str, target: str, body: Any = None) -> Any:
        connection = UnixConnection(self.path)
        data = None if body is None else json.dumps(body)
        connection.request(method, target, data, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        assert answer.status < 300, text
        return json.loads(text) if text.strip() else None


@pytest.fixture
def api(gateway: Docker, gateway_socket: Path) -> Api:
    del gateway  # has imported the image
    return Api(gateway_socket)


def asked(**host_config: Any) -> dict[str, Any]:
    return {
        "Image": "tiny",
        "Cmd": ["sleep", "60"],
        "Env": ["A=1"],
        "Labels": LABELS,
        "HostConfig": {
            "NetworkMode": "none",
            "SecurityOpt": ["no-new-privileges", OPTION],
            "Tmpfs": {"/scratch": "size=1m"},
            **host_config,
        },
    }


def ours(container: dict[str, Any]) -> list[str]:
    return [entry for entry in container["Config"]["Env"] or [] if entry.startswith(OURS)]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_shows_what_was_asked_for(api: Api, version: str) -> None:
    api("POST", f"{version}/containers/create?name=c1", asked())
    for shown_in in VERSIONS:
        for query in ("", "?size=1"):
            container = api("GET", f"{shown_in}/containers/c1/json{query}")
            config = container["HostConfig"]
            assert config["SecurityOpt"] == ["no-new-privileges", OPTION]
            assert config["Runtime"] == "runc"
            assert config["Tmpfs"] == {"/scratch": "size=1m"}
            assert "Annotations" not in config
            assert ours(container) == []
            assert "A=1" in container["Config"]["Env"]
            assert ("SizeRootFs" in container) == bool(query)


def recreated(api: Api, version: str, shown: dict[str, Any]) -> dict[str, Any]:
    """Replace a container as Watchtower does: its configuration as inspect shows it."""
    name = shown["Name"].lstrip("/")
    api("DELETE", f"{version}/containers/{name}?force=1")
    body = {**shown["Config"], "HostConfig": shown["HostConfig"], "NetworkingConfig": {}}
    api("POST", f"{version}/containers/create?name={name}", body)
    api("POST", f"{version}/containers/{name}/start")
    found: dict[str, Any] = api("GET", f"{version}/containers/{name}/json")
    return found


@pytest.mark.parametrize("first", VERSIONS)
@pytest.mark.parametrize("second", VERSIONS)
def test_watchtowers_calls_simulated_keep_the_identity(
    api: Api, daemon: Daemon, first: str, second: str
) -> None:
    """Inspect, remove, and create from what inspect said; twice, since it does so at each image."""
    api("POST", f"{first}/containers/create?name=c1", asked())
    before = kept(daemon, "c1")
    shown = api("GET", f"{second}/containers/c1/json")
    for _ in range(2):
        again = recreated(api, second, shown)
        after = kept(daemon, "c1")
        for name in ("spec", "owner"):
            assert carried(after, name) == carried(before, name)
        assert after["HostConfig"]["Runtime"] == "credspec"
        for key in ("SecurityOpt", "Runtime", "Tmpfs"):
            assert again["HostConfig"][key] == shown["HostConfig"][key]
        assert again["Config"]["Env"] == shown["Config"]["Env"]
        shown = again


def test_a_raw_document_is_shown_as_it_was_asked_for(api: Api, daemon: Daemon) -> None:
    option = f"CredentialSpec=RAW://{SAMPLE.read_text('utf-8-sig')}"
    api("POST", "/v1.41/containers/create?name=c1", asked(SecurityOpt=[option]))
    shown = api("GET", "/v1.41/containers/c1/json")
    assert shown["HostConfig"]["SecurityOpt"] == [option]
    recreated(api, "/v1.25", shown)
    assert carried(kept(daemon, "c1")) == option.partition("=")[2].replace("RAW", "raw", 1)


def test_a_users_own_variable_stays_and_is_shown(api: Api) -> None:
    body = asked() | {"Env": ["KRB5CCNAME=FILE:/mine"]}
    api("POST", "/v1.41/containers/create?name=c1", body)
    assert ours(api("GET", "/v1.41/containers/c1/json")) == ["KRB5CCNAME=FILE:/mine"]


def test_an_annotation_asks_too_where_dockerd_would_drop_it(api: Api, daemon: Daemon) -> None:
    annotations = {"credspec.dev/spec": "file://www.json", "credspec.dev/mode": "0440"}
    body = asked(SecurityOpt=[], Runtime="credspec", Annotations=annotations)
    api("POST", "/v1.41/containers/create?name=c1", body)
    for _ in range(2):
        container = kept(daemon, "c1")
        assert carried(container) == "file://www.json"
        assert carried(container, "mode") == "0440"
        shown = api("GET", "/v1.41/containers/c1/json")
        assert shown["HostConfig"]["Annotations"] == annotations
        assert shown["HostConfig"]["Runtime"] == "credspec"
        assert ours(shown) == []
        recreated(api, "/v1.41", shown)


def test_a_container_that_lost_its_spec_is_refused(api: Api, daemon: Daemon) -> None:
    """As tools make it that know dockerd's own answers, with a version that drops annotations."""
    body = {
        "Image": "tiny",
        "Env": ["KRB5CCNAME=FILE:/run/credspec/krb5cc"],
        "HostConfig": {"Runtime": "credspec"},
    }
    with pytest.raises(AssertionError, match="spec-missing"):
        api("POST", "/v1.41/containers/create?name=c1", body)
    assert api("GET", "/v1.41/containers/json?all=1") == []


def test_the_docker_client_and_lists(gateway: Docker, api: Api) -> None:
    gateway("create", "--name=c1", "--network=none", "--security-opt", OPTION, "tiny", "true")
    shown = gateway("inspect", "--format={{json .HostConfig.SecurityOpt}}", "c1")
    assert json.loads(shown.stdout) == [OPTION]
    assert "credspec" not in json.dumps(api("GET", "/v1.41/containers/json?all=1"))
    assert "credspec" not in json.dumps(api("GET", "/v1.41/system/df"))
    absent = gateway("inspect", "absent")
    assert absent.returncode == 1
    assert "no such object: absent" in absent.stderr.lower()


SDK = """
    import docker, json, sys
    client = docker.DockerClient(base_url=sys.argv[1], version=sys.argv[2])
    first = client.containers.get("c1")
    config = first.attrs["HostConfig"]
    first.remove(force=True)
    second = client.containers.create(
        first.attrs["Config"]["Image"],
        first.attrs["Config"]["Cmd"],
        name="c1",
        environment=first.attrs["Config"]["Env"],
        labels=first.attrs["Config"]["Labels"],
        network_mode=config["NetworkMode"],
        security_opt=config["SecurityOpt"],
        runtime=config["Runtime"],
        tmpfs=config["Tmpfs"],
    )
    second.reload()
    names = ("SecurityOpt", "Runtime", "Tmpfs", "Annotations")
    same = all(second.attrs["HostConfig"].get(name) == config.get(name) for name in names)
    same = same and second.attrs["Config"]["Env"] == first.attrs["Config"]["Env"]
    second.commit("committed", conf={"User": "1000"})
    print(json.dumps([same, client.images.get("committed").attrs["Config"]]))
"""


@pytest.mark.parametrize("version", ["1.25", "1.41"])
def test_the_docker_sdk_for_python(
    api: Api, daemon: Daemon, gateway_socket: Path, version: str
) -> None:
    """The one that Debian's docker-compose brings."""
    api("POST", "/v1.41/containers/create?name=c1", asked())
    before = kept(daemon, "c1")
    program = textwrap.dedent(SDK)
    command = ["/usr/bin/python3", "-c", program, f"unix://{gateway_socket}", version]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr
    same, image = json.loads(ran.stdout)
    assert same
    assert carried(kept(daemon, "c1")) == carried(before) == "file://www.json"
    assert image["User"] == "1000"
    assert not [e for e in image["Env"] if e.startswith(OURS) and "=" in e]


def test_a_committed_image_has_no_variable_of_the_gateways(
    gateway: Docker, daemon: Daemon, api: Api
) -> None:
    """Also with `docker commit` itself, and dockerd takes its containers for those without."""
    body = asked() | {"StopSignal": "SIGINT", "Env": ["A=1", "KRB5_KTNAME=/mine"]}
    api("POST", "/v1.41/containers/create?name=c1", body)
    for name, change in (("plain", []), ("changed", ["--change", "ENV B=2", "--message", "m"])):
        assert gateway("commit", *change, "c1", name).returncode == 0
        image = json.loads(gateway("image", "inspect", name).stdout)[0]["Config"]
        assert [e for e in image["Env"] if e.startswith(OURS) and "=" in e] == ["KRB5_KTNAME=/mine"]
        assert image["StopSignal"] == "SIGINT", "all else is the container's"
        assert image["Labels"] == LABELS
        ran = gateway("run", "--rm", "--network=none", name, "env")
        lines = ran.stdout.splitlines()
        assert [line for line in lines if line.startswith(OURS)] == ["KRB5_KTNAME=/mine"]
        assert "A=1" in lines
        assert ("B=2" in lines) == bool(change)
    # With the option, a container of it is as any other.
    made = gateway("create", "--name=c2", "--network=none", "--security-opt", OPTION, "plain")
    assert made.returncode == 0, made.stderr
    assert carried(kept(daemon, "c2")) == "file://www.json"


def test_a_commit_of_another_container_is_the_same_as_without_the_gateway(
    gateway: Docker, daemon: Daemon, gateway_socket: Path
) -> None:
    del daemon
    gateway("create", "--name=c1", "--network=none", "-e", "KRB5CCNAME=FILE:/x", "tiny", "true")
    assert gateway("commit", "c1", "other").returncode == 0
    image = json.loads(gateway("image", "inspect", "other").stdout)[0]["Config"]
    assert "KRB5CCNAME=FILE:/x" in image["Env"]
    with pytest.raises(AssertionError, match="No such container"):
        Api(gateway_socket)("POST", "/v1.41/commit?container=none")
