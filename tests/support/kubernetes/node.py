"""A node of a test cluster: a kubelet and a containerd, with the pods' network.

Of the machine it changes nothing: what the kubelet would write to /proc/sys is bound away, its
cgroups are removed.
"""

from __future__ import annotations

import json
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from credspec.lab.domain import Lab
from support.engines.containerd_engine import ContainerdEngine
from support.kubernetes.cluster_certificates import ClusterCertificates
from support.kubernetes.programs import path_of

# What the kubelet wants of the machine; it reads these, and writes nothing.
_SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
_CNI = {
    2: """
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{directory}"
""",
    3: """
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "{directory}"
""",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    """A node's name, address and pods' network, where its files are and what its kubelet sees.

    `kubelet_directory` is the kubelet's --root-dir as the kubelet sees it, `cgroup` the parent of
    its cgroups, empty for the root of all.
    """

    name: str
    address: str
    pods: str
    directory: Path
    kubelet_directory: Path
    cgroup: str = ""


@dataclass(slots=True)
class Node:
    """What a node's kubelet and containerd are started with."""

    lab: Lab
    plan: NodePlan
    certificates: ClusterCertificates
    containerd: ContainerdEngine
    sysctls: Path = field(init=False)

    def __post_init__(self) -> None:
        self.plan.directory.mkdir(exist_ok=True)
        self.sysctls = self.plan.directory / "sysctl"
        self._write_network()

    def kubelet_command(self) -> list[str]:
        """Return the kubelet's command, in a mount namespace without the machine's settings."""
        plan = self.plan
        lines = ["mount --make-private /proc"]
        for name, value in _SYSCTLS.items():
            path = self.sysctls / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{value}\n")
            lines.append(f"mount --bind {path} /proc/sys/{name}")
        config = plan.directory / "kubelet.json"
        config.write_text(json.dumps(self._kubelet_configuration()))
        kubeconfig = self.certificates.kubeconfig(f"/O=system:nodes/CN=system:node:{plan.name}")
        command = [str(path_of("kubelet")), f"--config={config}", f"--kubeconfig={kubeconfig}"]
        command += [f"--root-dir={plan.kubelet_directory}", f"--hostname-override={plan.name}"]
        command.append(f"--node-ip={plan.address}")
        script = " && ".join([*lines, 'exec "$@"'])
        surroundings = ["unshare", "--mount", "--propagation=unchanged", "sh", "-ec", script, "sh"]
        return [*surroundings, *command]

    def make_cgroup(self) -> None:
        """Make the parent of the kubelet's cgroups, where it is not the root of all."""
        if self.plan.cgroup:
            for each in _hierarchies():
                (each / self.plan.cgroup).mkdir(exist_ok=True)
            _fill_cpuset(Path("/sys/fs/cgroup/cpuset", self.plan.cgroup))

    def remove_cgroups(self) -> None:
        """Remove the cgroups that the kubelet and containerd have made and that nobody is in."""
        names = [self.plan.cgroup] if self.plan.cgroup else ["kubepods", "k8s.io"]
        for each in _hierarchies():
            for name in names:
                for path in sorted((each / name).rglob("*"), reverse=True):
                    if path.is_dir():
                        with suppress(OSError):
                            path.rmdir()
                with suppress(OSError):
                    (each / name).rmdir()

    def _write_network(self) -> None:
        cni = self.plan.directory / "cni"
        cni.mkdir()
        with self.containerd.config.open("a") as config:
            config.write(_CNI[self.containerd.config_version].format(directory=cni))
        network = {
            "cniVersion": "0.4.0",
            "name": "pods",
            "type": "bridge",
            "bridge": "pods0",
            "isGateway": True,
            "ipam": {
                "type": "host-local",
                "subnet": self.plan.pods,
                "dataDir": str(self.plan.directory / "addresses"),
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
        (cni / "10-pods.conf").write_text(json.dumps(network))

    def _kubelet_configuration(self) -> dict[str, Any]:
        certificate, key = self.certificates.kubelet(self.plan.name, self.plan.address)
        authority = self.certificates.authority.certificate
        resolver = self.plan.directory / "resolv.conf"
        resolver.write_text(f"nameserver {self.lab.dc_address}\nsearch {self.lab.dns_domain}\n")
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": "0.0.0.0",  # noqa: S104 - of the node's network
            "tlsCertFile": str(certificate),
            "tlsPrivateKeyFile": str(key),
            "authentication": {
                "anonymous": {"enabled": False},
                "x509": {"clientCAFile": str(authority)},
                "webhook": {"enabled": True},
            },
            "authorization": {"mode": "Webhook"},
            "containerRuntimeEndpoint": f"unix://{self.containerd.socket}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.plan.cgroup}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "enforceNodeAllocatable": [],
            "makeIPTablesUtilChains": False,
            "oomScoreAdj": 0,
            "resolvConf": str(resolver),
            "podLogsDir": str(self.plan.directory / "logs"),
            # How often volumes are published again.
            "syncFrequency": "10s",
            # A machine with a full disk must not evict the test's pods and images.
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "evictionHard": {
                "memory.available": "1Mi",
                "nodefs.available": "0%",
                "nodefs.inodesFree": "0%",
                "imagefs.available": "0%",
                "imagefs.inodesFree": "0%",
            },
        }


def share(directory: Path) -> None:
    """Let what is mounted below a directory be seen by all that see it."""
    for arguments in (
        ("--bind", str(directory), str(directory)),
        ("--make-shared", str(directory)),
    ):
        subprocess.run(["mount", *arguments], check=True)


def _hierarchies() -> list[Path]:
    return [path for path in Path("/sys/fs/cgroup").glob("*") if (path / "cgroup.procs").exists()]


def _fill_cpuset(directory: Path) -> None:
    """Give a cgroup of version 1 the processors and memory nodes of its parent."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        with suppress(OSError):
            (directory / name).write_text((directory.parent / name).read_text())
