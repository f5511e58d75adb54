"""A containerd of its own, in a lab's network: the host's is not touched."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from credspec.lab.namespaces import unmount_below
from support.engines.container_image import image_archive
from support.engines.engine_command import run_client

IMAGE = "docker.io/library/kerberos-client:test"
_CONFIG = """\
version = {version}
root = "{directory}/root"
state = "{directory}/state"

[grpc]
  address = "{directory}/containerd.sock"
"""
# The same image holds a pod's namespaces, so that nothing is pulled; and a machine without
# CAP_SYS_RESOURCE cannot protect it from the out-of-memory killer.
_PLUGINS = {
    2: f"""
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{IMAGE}"
  restrict_oom_score_adj = true
""",
    3: f"""
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{IMAGE}"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
""",
}


class ContainerdEngine:
    """containerd with its own data, sockets and configuration; `directory` holds all of it.

    `programs` is a directory with programs of another version than the machine's.
    """

    def __init__(
        self, network_namespace: str, *, config_version: int = 2, programs: Path | None = None
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="credspec-containerd-", dir="/var/tmp"))
        self.directory.chmod(0o711)  # the root of a user namespace must get through
        self.config = self.directory / "config.toml"
        self.socket = self.directory / "containerd.sock"
        self.log = self.directory / "containerd.log"
        self.config_version = config_version
        self._programs = programs
        self.surroundings = ["nsenter", f"--net=/run/netns/{network_namespace}"]
        self._process: subprocess.Popen[bytes] | None = None
        config = _CONFIG.format(version=config_version, directory=self.directory)
        self.config.write_text(config + _PLUGINS[config_version])

    def start(self) -> None:
        """Start containerd and wait until it answers."""
        command = [*self.surroundings, *self.containerd_command()]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=self._environment(), stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + 60
        while self.ctr("version").returncode != 0:
            if time.monotonic() > end or self._process.poll() is not None:
                raise RuntimeError(f"containerd does not start: {self.log.read_text()[-1000:]}")
            time.sleep(0.1)

    def kill(self, number: int) -> None:
        """End containerd by a signal; its containers go on."""
        assert self._process is not None
        self._process.send_signal(number)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def containerd_command(self) -> list[str]:
        """Return the command of containerd, as it is in the network namespace."""
        return [self._program("containerd"), "--config", str(self.config)]

    def _program(self, name: str) -> str:
        return name if self._programs is None else str(self._programs / name)

    def _environment(self) -> dict[str, str]:
        path = os.environ["PATH"]
        # It looks for its shim there first.
        return dict(os.environ) | {"PATH": f"{self._programs}:{path}" if self._programs else path}

    def forget(self) -> None:
        """Take note that containerd and all that it ran have been killed."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def ctr(
        self, *arguments: str, namespace: str = "default", data: bytes | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run containerd's own client."""
        return run_client([*self.ctr_command(), "--namespace", namespace, *arguments], data=data)

    def run(self, *options: str, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a container of `IMAGE` to its end by ``ctr run``; `command` begins with its name.

        containerd writes its output to a file: ctr 1.6 closes the pipe of a container that has
        ended, read or not, and a short output is lost. What the container says, on either
        stream, is the result's `stdout`; its `stderr` is what ctr says.
        """
        log = self.directory / "run.log"
        log.unlink(missing_ok=True)
        to_log = f"--log-uri=file://{log}"
        client = self.ctr("run", "--rm", to_log, *options, IMAGE, *command)
        client.stdout += log.read_text("utf-8", "replace") if log.exists() else ""
        return client

    def ctr_command(self) -> list[str]:
        """Return the beginning of every command of ctr."""
        return [self._program("ctr"), "--address", str(self.socket)]

    def import_image(self, root: bytes) -> None:
        """Make the image `IMAGE` of a root file system, for ctr and for the CRI."""
        archive = image_archive(root, IMAGE, ["sleep", "3600"])
        for namespace in ("default", "k8s.io"):
            self.load(archive, namespace)

    def load(self, archive: bytes, namespace: str) -> None:
        """Import an image as ``docker save`` writes it."""
        loaded = self.ctr("images", "import", "-", namespace=namespace, data=archive)
        assert loaded.returncode == 0, loaded.stderr

    def version(self) -> str:
        """Return the server's version."""
        lines = self.ctr("version").stdout.splitlines()
        return [line.split()[-1] for line in lines if "Version:" in line][-1]

    def stop(self) -> None:
        """Stop containerd, what it runs, and remove its files."""
        if self._process is not None and self._process.poll() is None:
            for namespace in ("default", "k8s.io"):
                for task in self.ctr("tasks", "ls", "-q", namespace=namespace).stdout.split():
                    self.ctr("tasks", "rm", "--force", task, namespace=namespace)
            self.kill(signal.SIGTERM)
        unmount_below(self.directory)
        shutil.rmtree(self.directory, ignore_errors=True)
        assert not os.path.lexists(self.directory)
