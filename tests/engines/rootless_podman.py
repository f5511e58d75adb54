"""Podman of a user without privileges, with a runtime directory and subordinate ids of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import credspec
from credspec.lab.namespaces import bind, unmount_below
from credspec.runtimes.podman_setup import PodmanSetup

USER = pwd.getpwnam("nobody")
FIRST_ID, IDS = 200_000, 65_536
# Podman reads the drop-in as if it were the whole; this machine's limits and cgroups are not those
# of a user's session.
_CONFIG = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
cgroups = "disabled"
[engine]
runtime_supports_nocgroup = ["crun", "credspec"]
"""


class RootlessPodman:
    """Set up by root as on a host, used by the user; `directory` holds all of it.

    The process that makes one must be in a mount namespace of its own.
    """

    def __init__(self, run_directory: Path) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="credspec-rootless-", dir="/var/tmp"))
        self.directory.chmod(0o755)
        self.home = self.directory / "home"
        self.runtime_directory = Path("/run/user") / str(USER.pw_uid)
        self.home.mkdir()
        os.chown(self.home, USER.pw_uid, USER.pw_gid)
        self.setup = PodmanSetup(
            run_directory=run_directory,
            config_directory=self.directory / "containers.conf.d",
            hooks_directory=self.directory / "hooks.d",
            launcher_directory=self.directory / "libexec",
        )
        self.setup.apply()
        self._install()
        config = (self.setup.config_directory / "50-credspec.conf").read_text()
        self._config = self.directory / "containers.conf"
        self._config.write_text(config + _CONFIG)
        self._become_a_users_host()

    def _install(self) -> None:
        """Let the user read what the launchers start, as it could of an installed package."""
        source = Path(credspec.__file__).parents[1]
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, self.directory / "package", ignore=ignored)
        for launcher in (self.setup.launcher, self.setup.hook_launcher):
            _, _, rest = launcher.read_text().partition("\n")
            rest = rest.replace(str(source), f"{self.directory}/package")
            launcher.write_text(f"#!/usr/bin/python3 -IS\n{rest}")

    def _become_a_users_host(self) -> None:
        bind_subordinate_ids(self.directory)
        self.runtime_directory.mkdir(parents=True, exist_ok=True)
        owner = f"uid={USER.pw_uid},gid={USER.pw_gid},mode=0700"
        mount = ["mount", "-t", "tmpfs", "-o", owner, "run", str(self.runtime_directory)]
        subprocess.run(mount, check=True)

    def podman(
        self, *arguments: str, hooks: bool = False, data: bytes | None = None
    ) -> subprocess.CompletedProcess[str]:
        ids = [f"--reuid={USER.pw_uid}", f"--regid={USER.pw_gid}", "--clear-groups"]
        command = ["setpriv", *ids, "podman", "--storage-driver", "vfs"]
        command += ["--root", f"{self.home}/root", "--events-backend", "file"]
        command += ["--cgroup-manager", "cgroupfs"]
        if hooks:
            command += ["--hooks-dir", str(self.setup.hooks_directory)]
        result = subprocess.run(
            [*command, *arguments],
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME": str(self.home),
                "USER": USER.pw_name,
                "XDG_RUNTIME_DIR": str(self.runtime_directory),
                "CONTAINERS_CONF": str(self._config),
            },
            cwd=self.home,
            input=data,
            capture_output=True,
            check=False,
            timeout=120,
        )
        return subprocess.CompletedProcess(
            result.args, result.returncode, result.stdout.decode(), result.stderr.decode()
        )

    def leases(self) -> list[Path]:
        """Return the directories of leases that are there now."""
        directory = self.runtime_directory / "credspec" / "leases"
        return sorted(directory.iterdir()) if directory.exists() else []

    def close(self) -> None:
        self.podman("rm", "--all", "--force", "--time", "0")
        # What is left in the user's namespace is gone with the process that holds it.
        self.podman("system", "migrate")
        unbind_subordinate_ids()
        unmount_below(self.runtime_directory)
        self.runtime_directory.rmdir()
        unmount_below(self.directory)
        shutil.rmtree(self.directory)


def bind_subordinate_ids(directory: Path) -> None:
    """Give the user ids for its containers, in this mount namespace."""
    for name in ("subuid", "subgid"):
        (directory / name).write_text(f"{USER.pw_name}:{FIRST_ID}:{IDS}\n")
        bind(directory / name, Path("/etc") / name)


def unbind_subordinate_ids() -> None:
    for name in ("subuid", "subgid"):
        unmount_below(Path("/etc") / name)
