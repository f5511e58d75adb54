"""The docker command at a dockerd of the module's own, through a gateway of the module's own."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engines.docker_gateway import (
    SAMPLE,
    Daemon,
    Docker,
    docker,
    running_daemon,
    running_gateway,
    write_image,
)


@pytest.fixture(scope="module")
def daemon_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gateway")


@pytest.fixture(scope="module")
def daemon(daemon_directory: Path) -> Iterator[Daemon]:
    """A dockerd whose runtime `credspec` is only runc."""
    runc = shutil.which("runc") or "runc"
    with running_daemon(daemon_directory, f"--add-runtime=credspec={runc}") as running:
        yield running


@pytest.fixture(scope="module")
def specs(daemon: Daemon) -> Path:
    """The directory of specs, with `www.json`."""
    directory = daemon.directory / "specs"
    directory.mkdir()
    shutil.copy(SAMPLE, directory / "www.json")
    return directory


@pytest.fixture(scope="module")
def gateway_process(daemon: Daemon, specs: Path) -> Iterator[subprocess.Popen[bytes]]:
    with running_gateway(daemon.directory / "gateway.sock", daemon.socket, specs) as process:
        yield process


@pytest.fixture(scope="module")
def gateway_socket(daemon: Daemon, gateway_process: subprocess.Popen[bytes]) -> Path:
    return daemon.directory / "gateway.sock"


@pytest.fixture(scope="module")
def image_file(daemon: Daemon) -> Path:
    path = daemon.directory / "image.tar"
    write_image(path)
    return path


@pytest.fixture(scope="module")
def gateway(gateway_socket: Path, image_file: Path) -> Docker:
    """The docker command through the gateway; the image `tiny` is there."""

    def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        return docker(gateway_socket, *arguments, **options)

    imported = run("import", str(image_file), "tiny")
    assert imported.returncode == 0, imported.stderr
    return run


@pytest.fixture(autouse=True)
def no_containers_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test at the gateway, its containers are removed."""
    if "gateway_process" not in request.fixturenames:
        yield
        return
    daemon: Daemon = request.getfixturevalue("daemon")
    yield
    end = time.monotonic() + 60
    # Those that dockerd is removing by itself stay for a moment, and their names with them.
    while left := docker(daemon.socket, "ps", "-aq").stdout.split():
        assert time.monotonic() < end, left
        docker(daemon.socket, "rm", "-f", *left)
