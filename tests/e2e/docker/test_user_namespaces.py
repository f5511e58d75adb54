"""dockerd with ``userns-remap``: root of a container is one of a user's subordinate ids outside."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from credspec.setup.docker import DockerSetup
from support.engines.docker_gateway import Daemon, docker, running_daemon
from support.engines.rootless_engines import (
    FIRST_ID,
    USER,
    bind_subordinate_ids,
    unbind_subordinate_ids,
)

IMAGE = "kerberos-client"
SPEC = ("--runtime=credspec", "-e", "CREDSPEC=file://WebApp01.json", "--tmpfs=/run/credspec")

Docker = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def daemon(host: Any) -> Iterator[Daemon]:
    directory = Path(tempfile.mkdtemp(prefix="credspec-remapped-", dir="/var/tmp"))
    directory.chmod(0o711)
    config = directory / "daemon.json"
    DockerSetup(
        run_directory=host.config.run_directory,
        gateway_socket=host.config.gateway_socket,
        daemon_config=config,
        launcher_directory=directory / "libexec",
        context=None,
    ).apply()
    bind_subordinate_ids(directory)
    try:
        remapped = f"--userns-remap={USER.pw_name}:nogroup"
        with running_daemon(directory, remapped, f"--config-file={config}") as running:
            image = directory / "image.tar"
            image.write_bytes(host.image)
            imported = docker(running.socket, "import", str(image), IMAGE)
            assert imported.returncode == 0, imported.stderr
            yield running
    finally:
        unbind_subordinate_ids()
        shutil.rmtree(directory)


@pytest.fixture
def remapped(host: Any, daemon: Daemon) -> Iterator[Docker]:
    yield lambda *arguments: docker(daemon.socket, *arguments)
    left = docker(daemon.socket, "ps", "-aq").stdout.split()
    if left:
        docker(daemon.socket, "rm", "-f", *left)
    end = time.monotonic() + 60
    while (host.leases() or host.mounts()) and time.monotonic() < end:
        time.sleep(0.1)
    assert (host.leases(), host.mounts()) == ([], [])


@pytest.mark.parametrize(("user", "outside"), [("0", FIRST_ID), ("1000", FIRST_ID + 1000)])
def test_tickets_belong_to_the_mapped_user(
    host: Any, remapped: Docker, user: str, outside: int
) -> None:
    started = remapped(
        *("run", "-d", "--name=u1", "--network=none", f"--user={user}", *SPEC, IMAGE),
        *("sh", "-c", "klist; cat /proc/self/uid_map; sleep 600"),
    )
    assert started.returncode == 0, started.stderr
    [mount] = host.mounts()
    assert {path.stat().st_uid for path in [Path(mount), *Path(mount).iterdir()]} == {outside}
    end = time.monotonic() + 60
    while "65536" not in (shown := remapped("logs", "u1")).stdout and time.monotonic() < end:
        time.sleep(0.1)
    assert "Default principal: WebApp01$@EXAMPLE.TEST" in shown.stdout, shown.stderr
    assert shown.stdout.splitlines()[-1].split() == ["0", str(FIRST_ID), "65536"]


def test_a_container_that_leaves_the_namespace(host: Any, remapped: Docker) -> None:
    """With ``--userns=host`` root is root."""
    options = ["--userns=host", "--network=none"]
    remapped("run", "-d", "--name=u1", *options, *SPEC, IMAGE, "sleep", "600")
    [mount] = host.mounts()
    assert Path(mount).stat().st_uid == 0
    assert json.loads(remapped("inspect", "u1").stdout)[0]["HostConfig"]["UsernsMode"] == "host"
