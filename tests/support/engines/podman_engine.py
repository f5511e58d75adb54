"""Podman with storage, configuration and hooks of its own: the host's is not touched."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from credspec.setup.podman import PodmanSetup
from support.engines.engine_command import run_client


class PodmanEngine:
    """Podman as root, or as `user` without privileges; `directory` holds all of it."""

    def __init__(self, run_directory: Path, *, hooks: bool = True) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="credspec-podman-", dir="/var/tmp"))
        self.setup = PodmanSetup(
            run_directory=run_directory,
            config_directory=self.directory / "containers.conf.d",
            hooks_directory=self.directory / "hooks.d",
            launcher_directory=self.directory / "libexec",
            hooks=hooks,
        )
        self.set_up()
        self.run = Path(f"/run/{self.directory.name}")

    def set_up(self) -> None:
        """Do what `credspec setup podman` does."""
        self.setup.apply()

    @property
    def environment(self) -> dict[str, str]:
        # The drop-in, read as if it were the whole; limits that this machine can set.
        config = self.directory / "containers.conf"
        file = self.setup.config_directory / "50-credspec.conf"
        drop_in = file.read_text() if file.exists() else ""
        config.write_text(
            drop_in + '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
        )
        return {**os.environ, "CONTAINERS_CONF": str(config)}

    def command(self, *arguments: str, hooks: bool) -> list[str]:
        command = ["podman", "--root", f"{self.directory}/root", "--runroot", f"{self.run}/storage"]
        command += ["--tmpdir", f"{self.run}/podman", "--storage-driver", "vfs"]
        command += ["--cgroup-manager", "cgroupfs", "--events-backend", "file"]
        if hooks:
            command += ["--hooks-dir", str(self.setup.hooks_directory)]
        return [*command, *arguments]

    def podman(
        self, *arguments: str, hooks: bool = False, data: bytes | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = self.command(*arguments, hooks=hooks)
        return run_client(command, data=data, environment=self.environment)

    def close(self) -> None:
        self.podman("rm", "--all", "--force", "--time", "0")
        self.podman("pod", "rm", "--all", "--force", "--time", "0")
        for directory in (self.run, self.directory):
            for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
                if line.split()[4].startswith(f"{directory}/"):
                    subprocess.run(["umount", "-l", line.split()[4]], check=False)
            shutil.rmtree(directory, ignore_errors=True)
