"""A dockerd of another Debian release, run out of a folder that holds its root file system."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import credspec
from credspec.lab.docker_engine import DockerEngine
from credspec.lab.namespaces import bind

CLONE_NEWNS, MS_PRIVATE, MS_BIND, MS_REC, MNT_DETACH = 0x20000, 1 << 18, 0x1000, 0x4000, 2
PACKAGES = "docker.io,containerd,runc,iptables,python3-minimal,libpython3-stdlib"


def bootstrap(release: str, folder: Path, mounts: int) -> None:
    """Make a root file system with Docker of a Debian release, from the mirror in use here.

    `mounts` is the file descriptor of the mount namespace whose name resolution reaches the mirror.
    """
    targets = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    codename = subprocess.run(
        ["sh", "-c", ". /etc/os-release && echo $VERSION_CODENAME"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    mirror = subprocess.run(
        [*targets, f"Codename: {codename}"], capture_output=True, text=True, check=True
    ).stdout.splitlines()[0]
    keyring = "--keyring=/usr/share/keyrings/debian-archive-keyring.gpg"
    made = subprocess.run(
        [
            *("nsenter", f"--mount=/proc/self/fd/{mounts}"),
            *("mmdebstrap", "--quiet", "--variant=minbase", keyring, f"--include={PACKAGES}"),
            *(release, str(folder), f"deb {mirror} {release} main"),
        ],
        check=False,
        capture_output=True,
        pass_fds=(mounts,),
    )
    assert made.returncode == 0, made.stderr.decode()


class FolderDockerEngine(DockerEngine):
    """As `DockerEngine`, with dockerd, containerd, runc and Python of the folder.

    `shared` are directories of this system that dockerd sees under the same names; of these
    `leases` keeps its propagation, so that what the shim mounts reaches the agent.
    """

    def __init__(self, namespace: str, folder: Path, shared: list[Path], leases: Path) -> None:
        super().__init__(namespace)
        self._folder, self._shared, self._leases = folder, shared, leases

    def dockerd_command(self) -> list[str]:
        source = Path(credspec.__file__).parents[1]
        plan = {
            "folder": str(self._folder),
            "shared": [str(p) for p in (self.directory, source, *self._shared)],
            "leases": str(self._leases),
        }
        return [sys.executable, __file__, json.dumps(plan), *super().dockerd_command()]


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
