"""The docker command through the gateway, at a real dockerd with a runtime that is only runc."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support.engines.docker_gateway import (
    Daemon,
    Docker,
    UnixConnection,
    carried,
    connections,
    docker,
    kept,
    run_argv,
    running_gateway,
)


def test_version_info_and_images(gateway: Docker, daemon: Daemon) -> None:
    for arguments in (
        ("version",),
        ("info", "--format", "{{.ID}}"),
        ("images", "--no-trunc"),
        ("image", "inspect", "tiny"),
    ):
        before = docker(daemon.socket, *arguments)
        through = gateway(*arguments)
        after = docker(daemon.socket, *arguments)
        assert through.returncode == 0, through.stderr
        # The age of an image is shown in seconds.
        assert through.stdout in (before.stdout, after.stdout)


def test_save_and_load_are_the_same_bytes(gateway: Docker, daemon: Daemon, tmp_path: Path) -> None:
    through, direct = tmp_path / "through.tar", tmp_path / "direct.tar"
    for _ in range(10):
        assert gateway("save", "-o", str(through), "tiny").returncode == 0
        assert docker(daemon.socket, "save", "-o", str(direct), "tiny").returncode == 0
        digests = {hashlib.sha256(path.read_bytes()).digest() for path in (through, direct)}
        if len(digests) == 1:  # else a second of the clock began between them: it is in the archive
            break
    assert len(digests) == 1
    assert "Loaded image: tiny:latest" in gateway("load", "-i", str(through)).stdout


def test_standard_input_ends_and_output_goes_on(gateway: Docker) -> None:
    data = "x" * 3_000_000
    result = gateway(*run_argv("-i"), "sh", "-c", "cat | wc -c; echo after", input=data)
    assert (result.returncode, result.stdout.split()) == (0, ["3000000", "after"])


def test_exit_status_and_both_outputs(gateway: Docker) -> None:
    result = gateway(*run_argv(), "sh", "-c", "echo out; echo err >&2; exit 42")
    assert (result.returncode, result.stdout, result.stderr) == (42, "out\n", "err\n")


def test_exec_cp_and_logs(gateway: Docker, tmp_path: Path) -> None:
    loop = "while echo line; do sleep 0.2; done"
    assert gateway(*run_argv("-d", "--name", "c1"), "sh", "-c", loop).returncode == 0
    assert gateway("exec", "-i", "c1", "cat", input="in\n").stdout == "in\n"
    (tmp_path / "file").write_text("contents")
    assert gateway("cp", str(tmp_path / "file"), "c1:/file").returncode == 0
    assert gateway("exec", "c1", "cat", "/file").stdout == "contents"
    assert gateway("cp", "c1:/file", str(tmp_path / "back")).returncode == 0
    assert (tmp_path / "back").read_text() == "contents"
    gateway("kill", "c1")


def test_logs_arrive_as_they_are_written(gateway: Docker, gateway_socket: Path) -> None:
    loop = "while echo line; do sleep 0.2; done"
    gateway(*run_argv("-d", "--name", "c1"), "sh", "-c", loop)
    following = subprocess.Popen(
        ["docker", "-H", f"unix://{gateway_socket}", "logs", "-f", "c1"], stdout=subprocess.PIPE
    )
    with following:
        assert following.stdout is not None
        # The container never ends by itself.
        assert [following.stdout.readline() for _ in range(3)] == [b"line\n"] * 3
        gateway("kill", "c1")
        assert following.wait(60) == 0


def test_events_arrive_as_they_happen(gateway: Docker, gateway_socket: Path) -> None:
    command = ["docker", "-H", f"unix://{gateway_socket}", "events"]
    command += ["--since", str(int(time.time())), "--filter", "type=container"]
    command += ["--format", "{{.Action}} {{.Actor.Attributes.name}}"]
    watching = subprocess.Popen(command, stdout=subprocess.PIPE)
    with watching:
        assert watching.stdout is not None
        gateway(*run_argv("--name", "seen"), "true")
        # The stream never ends by itself.
        while watching.stdout.readline() != b"create seen\n":
            pass
        watching.terminate()


@pytest.mark.parametrize("builder", ["0", "1"])
def test_build(gateway: Docker, gateway_socket: Path, tmp_path: Path, builder: str) -> None:
    (tmp_path / "Dockerfile").write_text("FROM tiny\nCOPY data /data\nRUN cat /data\n")
    (tmp_path / "data").write_bytes(b"some data")
    # The distribution's client brings BuildKit's own (HTTP/2 over an upgraded connection).
    client = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"
    result = subprocess.run(
        [
            *(client, "-H", f"unix://{gateway_socket}", "build", "--network=none"),
            *("-t", f"built{builder}", str(tmp_path)),
        ],
        env=os.environ | {"DOCKER_BUILDKIT": builder},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    shown = gateway("run", "--rm", "--network=none", f"built{builder}", "cat", "/data")
    assert shown.stdout == "some data"


def test_a_document_that_is_no_spec_is_refused_by_its_problems(gateway: Docker) -> None:
    refused = gateway(*run_argv("--security-opt", "credentialspec=raw://{}"), "true")
    assert refused.returncode == 125
    assert "[spec-" in refused.stderr
    assert gateway("ps", "-aq").stdout == ""


def test_the_option_reaches_the_daemon_as_runtime_and_carrier(
    gateway: Docker, daemon: Daemon
) -> None:
    options = ["--security-opt", "credentialspec=file://www.json"]
    options += ["--security-opt", "no-new-privileges", "-e", "A=1", "--name", "c1"]
    created = gateway("create", "--network=none", *options, "tiny", "true")
    assert created.returncode == 0, created.stderr
    container = kept(daemon, "c1")
    assert container["HostConfig"]["Runtime"] == "credspec"
    assert container["HostConfig"]["SecurityOpt"] == ["no-new-privileges"]
    assert "A=1" in container["Config"]["Env"]
    assert carried(container) == "file://www.json"


def test_other_security_options_pass_without_our_runtime(gateway: Docker) -> None:
    gateway("create", "--name=c1", "--security-opt=no-new-privileges", "tiny", "true")
    container = json.loads(gateway("inspect", "c1").stdout)[0]
    assert container["HostConfig"]["SecurityOpt"] == ["no-new-privileges"]
    assert container["HostConfig"]["Runtime"] == "runc"
    assert not any(
        entry.startswith(("CREDSPEC", "KRB5")) for entry in container["Config"]["Env"] or []
    )
    refused = gateway("create", "--security-opt=unheard=of", "tiny", "true")
    assert 'invalid --security-opt 2: "unheard=of"' in refused.stderr


def test_another_runtime_is_refused(gateway: Docker) -> None:
    option = "--security-opt=credentialspec=file://www.json"
    refused = gateway(*run_argv(option, "--runtime=io.containerd.runtime.v1.linux"), "true")
    assert "docker-runtime-conflict" in refused.stderr
    # Inspect shows runc of any other container, and tools copy it from there.
    taken = gateway(*run_argv(option, "--runtime=runc"), "env")
    assert "KRB5CCNAME=" in taken.stdout, taken.stderr


def test_a_connection_pool_cannot_slip_past_after_a_failed_upgrade(
    gateway: Docker, gateway_socket: Path
) -> None:
    del gateway
    connection = UnixConnection(gateway_socket)
    fields = {"Connection": "Upgrade", "Upgrade": "tcp"}
    body = {"Image": "tiny", "HostConfig": {"SecurityOpt": ["credentialspec=rubbish"]}}
    for _ in range(3):
        connection.request("POST", "/v1.41/containers/none/attach", headers=fields)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 404
        connection.request(
            "POST",
            "/v1.41/containers/create",
            json.dumps(body),
            {"Content-Type": "application/json"},
        )
        answer = connection.getresponse()
        assert b"invalid credential spec security option" in answer.read()
    connection.close()


def test_no_daemon_is_told_with_its_socket(tmp_path: Path) -> None:
    listen = tmp_path / "gateway.sock"
    with running_gateway(listen, tmp_path / "none.sock", tmp_path):
        result = docker(listen, "info")
        assert f"dockerd does not answer at {tmp_path}/none.sock" in result.stdout + result.stderr
        log = listen.with_suffix(".log").read_text()
        assert "docker-unreachable" in log, "an error is logged without --verbose"


def test_it_stops_at_once_with_connections_open(
    daemon: Daemon, gateway: Docker, tmp_path: Path
) -> None:
    del gateway
    listen = tmp_path / "gateway.sock"
    with running_gateway(listen, daemon.socket, tmp_path) as process:
        watching = subprocess.Popen(["docker", "-H", f"unix://{listen}", "events"])
        end = time.monotonic() + 60
        while connections(listen) == 0:
            assert time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        # The client never ends by itself.
        process.wait(60)
        watching.wait(60)
