"""A real dockerd, the agent and the gateway as processes, on the lab's joined host."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from credspec.api_client import AgentClient
from credspec.config.host import Config, load_config
from credspec.lab.client_image import write_client_image
from credspec.lab.docker_engine import DockerEngine
from credspec.lab.domain import Lab
from credspec.setup.docker import DockerSetup
from credspec.setup.launcher import launcher_text
from support.agent.agent_process import AgentProcess
from support.engines.folder_engine import ALL, DOCKER, ReleaseFolder

IMAGE = "kerberos-client"
BIN = Path(sys.executable).parent


class Host:
    """The lab's joined host with everything running: what a user of it types is run as is."""

    def __init__(self, lab: Lab, engine: DockerEngine, config: Config, image: bytes) -> None:
        self.lab, self.engine, self.config = lab, engine, config
        self.agent = AgentClient(config.agent_socket)
        self.image = image
        self._services: dict[str, subprocess.Popen[bytes]] = {}

    def shell(self, line: str, under: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """Run a line in the spec directory, with the docker context of the gateway.

        `under` is a command that runs what follows it.
        """
        environment = self.engine.environment
        environment["PATH"] = f"{BIN}:{environment['PATH']}"
        return subprocess.run(
            [*under, *self.lab.exec_argv(["bash", "-c", line])],
            cwd=self.lab.specs_directory,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def start(self, *command: str) -> None:
        """Start a service and wait for its socket."""
        sockets = {"agent": self.config.agent_socket, "docker-gateway": self.config.gateway_socket}
        with (self.lab.directory / f"{command[0]}.log").open("ab") as log:
            self._services[command[0]] = subprocess.Popen(
                self.lab.exec_argv([str(BIN / "credspec"), *command]),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end = time.monotonic() + 60
        while not answers(sockets[command[0]]):
            assert time.monotonic() < end, f"{command[0]} does not answer"
            time.sleep(0.02)

    def stop(self, name: str, number: int = signal.SIGTERM) -> None:
        """Stop a service by a signal."""
        process = self._services.pop(name, None)
        if process is not None:
            os.kill(process.pid, number)
            process.wait(60)

    def stop_all(self) -> None:
        for name in list(self._services):
            self.stop(name)

    def forget_identities(self) -> None:
        """Start a new agent: the old one holds what other tests used for a minute more."""
        self.stop("agent")
        self.start("agent")

    def acquisitions(self) -> int:
        return int(self.agent.get("/v1/identities")["acquisitions"])

    def leases(self) -> list[str]:
        return [lease["container"] for lease in self.agent.get("/v1/leases")["leases"]]

    def mounts(self) -> list[str]:
        """What is mounted below the leases' directories now."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        config = self.config
        parents = (
            config.leases_directory,
            config.process_leases_directory,
            config.volumes_directory,
        )
        below = tuple(f"{parent}/" for parent in parents)
        return [line.split()[4] for line in lines if line.split()[4].startswith(below)]

    def inspect(self, container: str) -> dict:
        return json.loads(self.engine.docker("inspect", container).stdout)[0]


def answers(path: Path) -> bool:
    """Whether somebody listens; a socket's file may be left by a service that was killed."""
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(path)) == 0


def register_crun(engine: DockerEngine, config: Config) -> None:
    """Register the shim once more, with crun below it."""
    launcher = engine.directory / "libexec" / "credspec-crun"
    launcher.write_text(launcher_text(config.run_directory, runtimes=("crun",)))
    launcher.chmod(0o755)
    document = json.loads(engine.daemon_config.read_text())
    document["runtimes"]["credspec-crun"] = {"path": str(launcher)}
    engine.daemon_config.write_text(json.dumps(document))


@pytest.fixture(scope="session")
def client_image() -> bytes:
    """The root file system of the image with Kerberos clients, as a tar."""
    tar = io.BytesIO()
    write_client_image(tar)
    return tar.getvalue()


@pytest.fixture(scope="session")
def host(lab: Lab, client_image: bytes) -> Iterator[Host]:
    engine = DockerEngine(lab.network.namespace)
    config = load_config(lab.config_path)
    before = os.environ.get("DOCKER_CONFIG")
    os.environ["DOCKER_CONFIG"] = engine.environment["DOCKER_CONFIG"]
    running = Host(lab, engine, config, client_image)
    try:
        DockerSetup(
            run_directory=config.run_directory,
            gateway_socket=config.gateway_socket,
            daemon_config=engine.daemon_config,
            launcher_directory=engine.directory / "libexec",
        ).apply()
        register_crun(engine, config)
        engine.start()
        running.start("agent")
        running.start("docker-gateway", "--upstream", str(engine.socket))
        engine.import_image(running.image, IMAGE)
        assert running.shell("docker context use credspec").returncode == 0
        for account in ("WebApp01", "WebApp02", "WebApp03"):
            made = running.shell(
                f"New-CredentialSpec -AccountName {account} -Path ./{account}.json"
            )
            assert made.returncode == 0, made.stderr
        yield running
    finally:
        running.stop_all()
        engine.stop()
        if before is None:
            os.environ.pop("DOCKER_CONFIG", None)
        else:
            os.environ["DOCKER_CONFIG"] = before


@pytest.fixture(scope="session")
def newer_release(host: Host, host_mounts: int) -> Iterator[ReleaseFolder]:
    """A newer Debian in a folder, with Docker; with `make test-runtimes`, with all engines."""
    release = os.environ.get("CREDSPEC_TEST_RELEASE")
    folder = ReleaseFolder(release or "trixie", ALL if release else DOCKER, host_mounts)
    try:
        folder.bootstrap()
        folder.enter([host.config.run_directory], host.config.leases_directory)
        yield folder
    finally:
        folder.close()


@pytest.fixture(scope="session")
def engines_folder(request: pytest.FixtureRequest) -> ReleaseFolder | None:
    """Where containerd and Podman are from; None for this system itself."""
    if "CREDSPEC_TEST_RELEASE" not in os.environ:
        return None
    return request.getfixturevalue("newer_release")


@pytest.fixture(scope="session")
def users_agent(lab: Lab) -> Iterator[AgentProcess]:
    """An agent that the user nobody may ask."""
    # Not below pytest's own directory: every run of it closes that to other users.
    directory = Path(tempfile.mkdtemp(prefix="credspec-users-agent-", dir="/var/tmp"))
    directory.chmod(0o755)
    policy = '[policy]\nusers = ["nobody"]\nkeytabs = ["WebApp01"]\n'
    running = AgentProcess(lab, directory, extra=policy)
    (directory / "specs").chmod(0o755)
    try:
        running.start()
        yield running
    finally:
        running.close()
        shutil.rmtree(directory)


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test: no lease, no mount, no container."""
    yield
    if "host" not in request.fixturenames:
        return
    running: Host = request.getfixturevalue("host")
    left = running.engine.docker("ps", "-aq", check=False).stdout.decode().split()
    if left:
        running.engine.docker("rm", "-f", *left)
    end = time.monotonic() + 60
    while (running.leases() or running.mounts()) and time.monotonic() < end:
        time.sleep(0.1)
    assert running.leases() == []
    assert running.mounts() == []
    assert left == []
