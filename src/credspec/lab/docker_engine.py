"""A dockerd of its own, in a lab's network: the host's Docker is not touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from credspec.lab.namespaces import unmount_below


class DockerEngine:
    """A dockerd with its own data, sockets and configuration; `directory` holds all of it.

    `network_namespace` is where its bridge and its packet filter rules live.
    """

    def __init__(self, network_namespace: str) -> None:
        # On disk, since overlay file systems do not stack on every tmpfs.
        self.directory = Path(tempfile.mkdtemp(prefix="credspec-docker-", dir="/var/tmp"))
        self.socket = self.directory / "docker.sock"
        self.daemon_config = self.directory / "daemon.json"
        self.log = self.directory / "dockerd.log"
        self._namespace = network_namespace
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a docker client of its own, without the caller's contexts."""
        kept = {k: v for k, v in os.environ.items() if k not in {"DOCKER_HOST", "DOCKER_CONTEXT"}}
        return kept | {"DOCKER_CONFIG": str(self.directory / "client")}

    def start(self, *, seconds: float = 60) -> None:
        """Start dockerd and wait until it answers, for so many seconds at most."""
        if not self.daemon_config.exists():
            self.daemon_config.write_text("{}")
        command = ["nsenter", f"--net=/run/netns/{self._namespace}", *self.dockerd_command()]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + seconds
        while self.docker("version", check=False).returncode != 0:
            if time.monotonic() > end or self._process.poll() is not None:
                raise RuntimeError(f"dockerd does not start: {self.log.read_text()[-1000:]}")
            time.sleep(0.1)

    def dockerd_command(self) -> list[str]:
        """Return the command of dockerd, as it is in the network namespace."""
        command = ["dockerd", "--config-file", str(self.daemon_config)]
        command += ["-H", f"unix://{self.socket}"]
        for option, name in (("--data-root", "data"), ("--exec-root", "exec"), ("-p", "pid")):
            command += [option, str(self.directory / name)]
        return command

    def docker(
        self, *arguments: str, check: bool = True, data: bytes | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the docker client against dockerd itself."""
        return subprocess.run(
            ["docker", "-H", f"unix://{self.socket}", *arguments],
            input=data,
            capture_output=True,
            env=self.environment,
            check=check,
        )

    def import_image(self, tar: bytes, name: str) -> None:
        """Make an image of a root file system."""
        self.docker("import", "-", name, data=tar)

    def version(self) -> str:
        """Return the server's version and the API's."""
        found = json.loads(self.docker("version", "--format", "{{json .Server}}").stdout)
        return f"Docker {found['Version']}, API {found['ApiVersion']}"

    def halt(self) -> None:
        """Remove all containers and stop dockerd; it can be started again."""
        if self._process is not None and self._process.poll() is None:
            found = self.docker("ps", "-aq", check=False).stdout.decode().split()
            if found:
                self.docker("rm", "-f", *found, check=False)
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def stop(self) -> None:
        """Stop dockerd and remove its files."""
        self.halt()
        unmount_below(self.directory)
        shutil.rmtree(self.directory, ignore_errors=True)
