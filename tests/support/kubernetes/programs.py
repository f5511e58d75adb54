"""The programs of a test cluster, containerd 2, helm and csi-sanity, of pinned modules.

`python -m support.kubernetes.programs [NAME...]` builds what is missing, once on a machine, in an
order in which tests can begin early. They are in a cache outside of the tree, by the version and a
hash of go.sum, so that another checkout finds them. kube-apiserver takes fourteen minutes of one
processor, all of it twenty-four.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

MODULES = Path(__file__).parent / "cluster"
_KUBERNETES = "k8s.io/kubernetes"
_VERSION = "k8s.io/component-base/version"


@dataclass(frozen=True)
class Program:
    """A program: the folder of the module that pins it, its package, a module with its version."""

    folder: str
    package: str
    module: str

    @property
    def directory(self) -> Path:
        """The folder of the module."""
        return MODULES / self.folder

    @property
    def version(self) -> str:
        """The version that go.mod requires."""
        text = (self.directory / "go.mod").read_text()
        match = re.search(rf"^\s*(?:require )?{re.escape(self.module)} (v\S+)", text, re.MULTILINE)
        assert match is not None, f"{self.module} is not in {self.directory}/go.mod"
        return match[1]

    @property
    def cache(self) -> Path:
        """The directory of this version's programs."""
        digest = hashlib.sha256((self.directory / "go.sum").read_bytes()).hexdigest()[:12]
        return _cache() / f"{self.folder}-{self.version}-{digest}"


def _cache() -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "credspec" / "kubernetes"


def _of_kubernetes(name: str) -> Program:
    return Program("programs", f"{_KUBERNETES}/cmd/{name}", _KUBERNETES)


def _of_containerd(name: str) -> Program:
    module = "github.com/containerd/containerd/v2"
    return Program("containerd", f"{module}/cmd/{name}", module)


# In this order, each uses what the ones before it compiled.
PROGRAMS = {
    "csi-sanity": Program(
        "csi-sanity",
        "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity",
        "github.com/kubernetes-csi/csi-test/v5",
    ),
    "etcd": Program("programs", "go.etcd.io/etcd/server/v3", _KUBERNETES),
    "kube-apiserver": _of_kubernetes("kube-apiserver"),
    "kube-controller-manager": _of_kubernetes("kube-controller-manager"),
    "kubelet": _of_kubernetes("kubelet"),
    "kube-scheduler": _of_kubernetes("kube-scheduler"),
    "kubectl": _of_kubernetes("kubectl"),
    "containerd": _of_containerd("containerd"),
    "containerd-shim-runc-v2": _of_containerd("containerd-shim-runc-v2"),
    "ctr": _of_containerd("ctr"),
    "helm": Program("helm", "helm.sh/helm/v3/cmd/helm", "helm.sh/helm/v3"),
}

OF_A_CLUSTER = tuple(name for name, each in PROGRAMS.items() if each.folder == "programs")
"""What a cluster of one node needs; containerd is the machine's own there."""


def path_of(name: str) -> Path:
    """Return where a program is, or will be."""
    return PROGRAMS[name].cache / name


def missing(*names: str) -> list[str]:
    """Return which programs are not built, of some or of all."""
    return [name for name in names or PROGRAMS if not os.access(path_of(name), os.X_OK)]


def build(name: str, build_cache: Path) -> None:
    """Build a program; what is half built is not taken for it.

    Raises:
        subprocess.CalledProcessError: go failed.
    """
    program = PROGRAMS[name]
    path = path_of(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}")
    flags = "-s -w"
    if program.module == _KUBERNETES:
        # Without these, they take themselves for version 0.
        major, minor, _ = program.version.removeprefix("v").split(".")
        values = {
            "gitVersion": program.version,
            "gitMajor": major,
            "gitMinor": minor,
            "gitTreeState": "clean",
            "gitCommit": "0" * 40,
            "buildDate": "2026-01-01T00:00:00Z",
        }
        flags += "".join(f" -X {_VERSION}.{key}={value}" for key, value in values.items())
    environment = dict(os.environ) | {
        "CGO_ENABLED": "0",
        "GOCACHE": str(build_cache),
        "GOFLAGS": "-buildvcs=false -mod=readonly",
        "GOTOOLCHAIN": "local",
    }
    command = ["go", "build", "-trimpath", "-ldflags", flags, "-o", str(part), program.package]
    try:
        subprocess.run(command, cwd=program.directory, env=environment, check=True)
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


def main(names: list[str]) -> int:
    """Build what is missing; a build that was stopped goes on where it was.

    The compiler's cache, of 4 GB in the end, is gone when all programs are there.
    """
    compiled = _cache() / "go-build"
    for name in missing(*names):
        began = time.monotonic()
        build(name, compiled)
        seconds = time.monotonic() - began
        print(f"built {name} {PROGRAMS[name].version} in {seconds:.0f} s", flush=True)  # noqa: T201
    if not missing():
        shutil.rmtree(compiled, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
