"""Engines of another Debian release, run out of a folder that holds its root file system."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import credspec
from credspec.lab.docker_engine import DockerEngine
from credspec.lab.namespaces import bind, unmount_below
from support.engines.containerd_engine import ContainerdEngine
from support.engines.podman_engine import PodmanEngine
from support.machine.debian_bootstrap import bootstrap_command

CLONE_NEWNS, MS_PRIVATE, MS_BIND, MS_REC, MNT_DETACH = 0x20000, 1 << 18, 0x1000, 0x4000, 2
DOCKER = ("docker.io", "containerd", "runc", "iptables", "python3-minimal", "libpython3-stdlib")
ALL = (*DOCKER, "crun", "podman", "criu")
# Where engines keep all that is theirs, here and in the folder.
SHARED = Path("/var/tmp")  # noqa: S108


class ReleaseFolder:
    """A root file system, and a mount namespace in which it is the root.

    `shared` are directories of this system that are there under the same names; of these `leases`
    keeps its propagation, so that what the shim mounts reaches the agent. `mounts` is the file
    descriptor of the mount namespace whose name resolution reaches the mirror.
    """

    def __init__(self, release: str, packages: tuple[str, ...], mounts: int) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=f"credspec-{release}-", dir=SHARED))
        self._release, self._packages, self._mounts = release, packages, mounts
        self._holder: subprocess.Popen[bytes] | None = None

    def bootstrap(self) -> None:
        """Make the root file system, from the mirror in use here."""
        command = bootstrap_command(self._release, self._packages, self.path)
        made = subprocess.run(
            [*("nsenter", f"--mount=/proc/self/fd/{self._mounts}"), *command],
            check=False,
            capture_output=True,
            pass_fds=(self._mounts,),
        )
        assert made.returncode == 0, made.stderr.decode()[-3000:]

    def enter(self, shared: list[Path], leases: Path) -> None:
        """Make the mount namespace, which lasts until `close`."""
        for name in ("hosts", "resolv.conf"):
            shutil.copyfile(f"/etc/{name}", self.path / "etc" / name)
        plan = {
            "folder": str(self.path),
            "shared": [str(p) for p in (SHARED, Path(credspec.__file__).parents[1], *shared)],
            "leases": str(leases),
        }
        self._holder = subprocess.Popen(
            [sys.executable, __file__, json.dumps(plan), "sh", "-c", "echo; exec sleep infinity"],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"\n"

    def command(self, command: list[str]) -> list[str]:
        """Return a command as it is run in the folder."""
        assert self._holder is not None
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", *command]

    def use_own_python(self, *launchers: Path) -> None:
        """Let launchers start the folder's Python."""
        for launcher in launchers:
            _, _, rest = launcher.read_text().partition("\n")
            launcher.write_text(f"#!/usr/bin/python3 -IS\n{rest}")

    def close(self) -> None:
        if self._holder is not None:
            self._holder.kill()
            with self._holder:  # waits, and closes its pipe
                pass
        unmount_below(self.path)
        shutil.rmtree(self.path, ignore_errors=True)


class FolderDockerEngine(DockerEngine):
    """As `DockerEngine`, with dockerd, containerd, runc and Python of the folder."""

    def __init__(self, namespace: str, folder: ReleaseFolder) -> None:
        super().__init__(namespace)
        self.folder = folder

    def dockerd_command(self) -> list[str]:
        return self.folder.command(super().dockerd_command())


class FolderContainerdEngine(ContainerdEngine):
    """As `ContainerdEngine`, with containerd, ctr and runc of the folder."""

    def __init__(self, namespace: str, folder: ReleaseFolder) -> None:
        super().__init__(namespace, config_version=3)
        self.folder = folder

    def containerd_command(self) -> list[str]:
        return self.folder.command(super().containerd_command())

    def ctr_command(self) -> list[str]:
        return self.folder.command(super().ctr_command())


class FolderPodmanEngine(PodmanEngine):
    """As `PodmanEngine`, with Podman, conmon, crun and runc of the folder."""

    def __init__(self, run_directory: Path, folder: ReleaseFolder) -> None:
        self.folder = folder
        super().__init__(run_directory)

    def set_up(self) -> None:
        super().set_up()
        self.folder.use_own_python(self.setup.launcher, self.setup.hook_launcher)

    def command(self, *arguments: str, hooks: bool) -> list[str]:
        return self.folder.command(super().command(*arguments, hooks=hooks))


def enter(folder: Path, shared: list[Path], leases: Path, command: list[str]) -> NoReturn:
    """Become a command in a mount namespace whose root is the folder."""
    call("unshare", CLONE_NEWNS)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        target = line.split(" ")[4].replace("\\040", " ")
        if not Path(target).is_relative_to(leases):
            ctypes.CDLL(None).mount(None, target.encode(), None, MS_PRIVATE, None)
    bind(folder, folder)
    for name in ("sys", "dev"):
        call("mount", f"/{name}".encode(), bytes(folder / name), None, MS_BIND | MS_REC, None)
    call("mount", b"proc", bytes(folder / "proc"), b"proc", 0, None)
    for name in ("run", "tmp"):
        call("mount", b"tmpfs", bytes(folder / name), b"tmpfs", 0, None)
    for path in (*shared, leases):
        inside = folder / path.relative_to("/")
        inside.mkdir(parents=True, exist_ok=True)
        bind(path, inside)
    old = folder / "mnt"
    os.chdir(folder)
    call_number(155, bytes(folder), bytes(old))  # pivot_root, which libc does not wrap
    os.chdir("/")
    call("umount2", b"/mnt", MNT_DETACH)
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    os.execvp(command[0], command)  # noqa: S606 - to become it is the purpose


def call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"{name}{arguments}: {os.strerror(ctypes.get_errno())}")


def call_number(number: int, *arguments: object) -> None:
    assert os.uname().machine == "x86_64", "the number of the system call is this machine's"
    call("syscall", number, *arguments)


if __name__ == "__main__":
    found = json.loads(sys.argv[1])
    enter(
        Path(found["folder"]),
        [Path(p) for p in found["shared"]],
        Path(found["leases"]),
        sys.argv[2:],
    )
