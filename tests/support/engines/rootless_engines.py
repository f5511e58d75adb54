"""Engines of a user without privileges, who has a runtime directory and subordinate ids."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import credspec
from credspec.lab.namespaces import bind, unmount_below
from credspec.setup.docker import DockerSetup
from credspec.setup.podman import PodmanSetup
from support.engines.engine_command import run_client

USER = pwd.getpwnam("nobody")
FIRST_ID, IDS = 200_000, 65_536
# Podman reads the drop-in as if it were the whole; this machine's limits and cgroups are not those
# of a user's session.
_PODMAN_CONFIG = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
cgroups = "disabled"
[engine]
runtime_supports_nocgroup = ["crun", "credspec"]
"""
# As Docker's own dockerd-rootless.sh: what another dockerd left in /run is not the user's.
_ROOTLESS = 'rm -f /run/docker /run/containerd /run/xtables.lock; exec "$@"'


class UsersHost:
    """A host as a user of it sees it; `directory` holds all that is made here.

    The process that makes one must be in a mount namespace of its own.
    """

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="credspec-rootless-", dir="/var/tmp"))
        self.directory.chmod(0o755)
        self.home = self.directory / "home"
        self.home.mkdir()
        os.chown(self.home, USER.pw_uid, USER.pw_gid)
        self.runtime_directory = Path("/run/user") / str(USER.pw_uid)
        self.environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.home),
            "USER": USER.pw_name,
            "XDG_RUNTIME_DIR": str(self.runtime_directory),
        }
        bind_subordinate_ids(self.directory)
        self.runtime_directory.mkdir(parents=True, exist_ok=True)
        owner = f"uid={USER.pw_uid},gid={USER.pw_gid},mode=0700"
        mount = ["mount", "-t", "tmpfs", "-o", owner, "run", str(self.runtime_directory)]
        subprocess.run(mount, check=True)

    @staticmethod
    def command(*arguments: str) -> list[str]:
        """Return a command as the user runs it."""
        ids = [f"--reuid={USER.pw_uid}", f"--regid={USER.pw_gid}", "--clear-groups"]
        return ["setpriv", *ids, *arguments]

    def install(self, *launchers: Path) -> None:
        """Let the user read what launchers start, as it could of an installed package."""
        source, copy = Path(credspec.__file__).parents[1], self.directory / "package"
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, copy, ignore=ignored, dirs_exist_ok=True)
        for launcher in launchers:
            _, _, rest = launcher.read_text().partition("\n")
            launcher.write_text(f"#!/usr/bin/python3 -IS\n{rest.replace(str(source), str(copy))}")

    def leases(self) -> list[Path]:
        """Return the directories of leases that are there now."""
        directory = self.runtime_directory / "credspec" / "leases"
        return sorted(directory.iterdir()) if directory.exists() else []

    def close(self) -> None:
        unbind_subordinate_ids()
        unmount_below(self.runtime_directory)
        self.runtime_directory.rmdir()
        unmount_below(self.directory)
        shutil.rmtree(self.directory)


class RootlessPodman:
    """Podman, set up by root for the whole host, and used by the user."""

    def __init__(self, run_directory: Path) -> None:
        self.host = UsersHost()
        self.setup = PodmanSetup(
            run_directory=run_directory,
            config_directory=self.host.directory / "containers.conf.d",
            hooks_directory=self.host.directory / "hooks.d",
            launcher_directory=self.host.directory / "libexec",
        )
        self.setup.apply()
        self.host.install(self.setup.launcher, self.setup.hook_launcher)
        drop_in = (self.setup.config_directory / "50-credspec.conf").read_text()
        self._config = self.host.directory / "containers.conf"
        self._config.write_text(drop_in + _PODMAN_CONFIG)

    def podman(
        self, *arguments: str, hooks: bool = False, data: bytes | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = ["podman", "--root", f"{self.host.home}/root", "--storage-driver", "vfs"]
        command += ["--cgroup-manager", "cgroupfs", "--events-backend", "file"]
        if hooks:
            command += ["--hooks-dir", str(self.setup.hooks_directory)]
        return run_client(
            self.host.command(*command, *arguments),
            data=data,
            environment=self.host.environment | {"CONTAINERS_CONF": str(self._config)},
            directory=self.host.home,
        )

    def close(self) -> None:
        self.podman("rm", "--all", "--force", "--time", "0")
        # Ends the process that holds the user's namespaces.
        self.podman("system", "migrate")
        self.host.close()


class RootlessDocker:
    """dockerd of the user, by rootlesskit; the network is the host's, and containers have none."""

    def __init__(self, run_directory: Path) -> None:
        self.host = UsersHost()
        self.socket = self.host.runtime_directory / "docker.sock"
        self.gateway_socket = self.host.runtime_directory / "credspec-docker.sock"
        self.log = self.host.directory / "dockerd.log"
        self._config = self.host.directory / "daemon.json"
        setup = DockerSetup(
            run_directory=run_directory,
            gateway_socket=self.gateway_socket,
            daemon_config=self._config,
            launcher_directory=self.host.directory / "libexec",
            context=None,
        )
        setup.apply()
        self.host.install(setup.launcher)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start dockerd and wait until it answers."""
        run = self.host.runtime_directory
        kit = ["rootlesskit", "--net=host", "--copy-up=/etc", "--copy-up=/run"]
        kit += [f"--state-dir={run}/rootlesskit", "sh", "-c", _ROOTLESS, "sh"]
        daemon = ["dockerd", "--rootless", f"--config-file={self._config}", "--bridge=none"]
        daemon += ["--iptables=false", "--storage-driver=vfs", f"--data-root={self.host.home}/data"]
        daemon += [f"--exec-root={run}/docker", f"--pidfile={run}/docker.pid"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.host.command(*kit, *daemon, f"--host=unix://{self.socket}"),
                env=self.host.environment,
                cwd=self.host.home,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + 60
        # Not by `docker version`: at that, version 26 fails over rootlesskit's network of none.
        while self.docker("ps").returncode != 0:
            assert self._process.poll() is None, self.log.read_text()[-2000:]
            assert time.monotonic() < end, self.log.read_text()[-2000:]
            time.sleep(0.2)

    def docker(
        self, *arguments: str, gateway: bool = False, data: bytes | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the docker command as the user."""
        socket = self.gateway_socket if gateway else self.socket
        return run_client(
            self.host.command("docker", "-H", f"unix://{socket}", *arguments),
            data=data,
            environment=self.host.environment,
            directory=self.host.home,
        )

    def close(self) -> None:
        if self._process is not None:
            left = self.docker("ps", "-aq").stdout.split()
            if left:
                self.docker("rm", "-f", *left)
            self._process.terminate()
            self._process.wait(60)
        self.host.close()


def bind_subordinate_ids(directory: Path) -> None:
    """Give the user ids for its containers, in this mount namespace."""
    for name in ("subuid", "subgid"):
        (directory / name).write_text(f"{USER.pw_name}:{FIRST_ID}:{IDS}\n")
        bind(directory / name, Path("/etc") / name)


def unbind_subordinate_ids() -> None:
    for name in ("subuid", "subgid"):
        unmount_below(Path("/etc") / name)
