"""A second node of a test cluster: its own network, mounts and processes, which can lose power.

It is connected with the lab's network namespace, and reaches the domain and the API server there.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from credspec.lab.domain import Lab
from support.engines.containerd_engine import ContainerdEngine
from support.kubernetes.cluster import NODE, Cluster
from support.kubernetes.node import Node, NodePlan
from support.kubernetes.programs import path_of

NAME = "node2"
_NEAR, _FAR = "10.215.0.1", "10.215.0.2"
_PODS = "10.214.1.0/24"
_LINK = "node2"
RUN = Path("/run/credspec")
# The kubelet's directory has the path that it has on the first node, as on any two nodes; what a
# machine has in memory is in memory here, and mounts go both ways as systemd has it.
_INIT = """
# Twice: what is listed twice is below another at first.
for round in 1 2; do
  for path in $(awk '{{print $5}}' /proc/self/mountinfo | grep -E '^({others})(/|$)' | sort -r); do
    umount --lazy "$path" 2>/dev/null || true
  done
done
mount -t proc proc /proc
mount -t tmpfs -o mode=0755 run /run
mount --make-shared /run
mount -t tmpfs -o mode=0711 state {state}
mount --bind {kubelet} {kubelet_path}
mount --make-shared {kubelet_path}
touch {started}
exec sleep infinity
"""


class SecondNode:
    """The node, with containerd 2; `start` and `lose_power` may follow each other.

    `run_directory` is its /run/credspec, for as long as its power is on.
    """

    run_directory: Path

    def __init__(self, lab: Lab, cluster: Cluster) -> None:
        self._cluster = cluster
        self._lab = lab
        self._namespace = f"{lab.network.namespace}-{NAME}"
        self._directory = cluster.directory / NAME
        self._directory.mkdir()
        self._kubelet = self._directory / "kubelet"
        self._kubelet.mkdir()
        self.containerd = ContainerdEngine(
            self._namespace, config_version=3, programs=path_of("containerd").parent
        )
        plan = NodePlan(
            name=NAME,
            address=_FAR,
            pods=_PODS,
            directory=self._directory,
            kubelet_directory=cluster.kubelet_directory,
            cgroup=f"credspec-{NAME}",
        )
        self._node = Node(lab, plan, cluster.certificates, self.containerd)

    def connect(self) -> None:
        """Make the node's network, with ways to its pods and from them."""
        for command in (
            ["netns", "add", self._namespace],
            self._of_lab("link", "add", _LINK, "type", "veth", "peer", "eth0", "netns", "NODE"),
            self._of_lab("address", "add", f"{_NEAR}/24", "dev", _LINK),
            self._of_lab("link", "set", _LINK, "up"),
            self._of_node("link", "set", "lo", "up"),
            self._of_node("address", "add", f"{_FAR}/24", "dev", "eth0"),
            self._of_node("link", "set", "eth0", "up"),
            self._of_node("route", "add", "default", "via", _NEAR),
            self._of_lab("route", "add", _PODS, "via", _FAR),
        ):
            names = [self._namespace if word == "NODE" else word for word in command]
            subprocess.run(["ip", *names], check=True, capture_output=True)

    def start(self, *loads: Callable[[ContainerdEngine], None]) -> None:
        """Switch it on, load images, and return when pods can run on it."""
        started = self._directory / "started"
        started.unlink(missing_ok=True)
        state = self.containerd.directory / "state"
        state.mkdir(exist_ok=True)
        script = _INIT.format(
            others="|".join(map(str, self._of_first_node())),
            state=state,
            kubelet=self._kubelet,
            kubelet_path=self._cluster.kubelet_directory,
            started=started,
        )
        init = ["unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child"]
        network = ["nsenter", f"--net=/run/netns/{self._namespace}"]
        programs = self._cluster.programs
        programs.run(f"{NAME}-init", [*network, *init, "sh", "-ec", script])
        self._cluster.wait("the second node's init", started.exists)
        pid = programs.pid(f"{NAME}-init")
        (first,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        self.run_directory = Path(f"/proc/{first}/root", *RUN.parts[1:])
        enter = ["nsenter", f"--target={first}", "--mount", "--pid", "--net"]
        self.containerd.surroundings = enter
        self._node.make_cgroup()
        self.containerd.start()
        for load in loads:
            load(self.containerd)
        programs.run(f"{NAME}-kubelet", [*enter, *self._node.kubelet_command()])
        self._cluster.wait_for_node(NAME)

    def lose_power(self) -> None:
        """End all its processes at once; what it had in memory is gone."""
        for name in (f"{NAME}-init", f"{NAME}-kubelet"):
            if name in self._cluster.programs.names():
                self._cluster.programs.stop(name, signal.SIGKILL)
        self.containerd.forget()

    def remove(self) -> None:
        """Remove it from the cluster, with all that it was."""
        self.lose_power()
        self._cluster.kubectl_result("delete", "node", NAME)
        of_it = (f"--field-selector=spec.nodeName={NAME}", "--force", "--grace-period=0")
        self._cluster.kubectl_result("delete", "pods", "--all-namespaces", *of_it)
        self.containerd.stop()
        self._node.remove_cgroups()
        for command in (
            self._of_lab("link", "delete", _LINK),
            ["netns", "delete", self._namespace],
        ):
            subprocess.run(["ip", *command], check=False, capture_output=True)

    def _of_first_node(self) -> list[Path]:
        """What the first node has mounted is not to live on here."""
        return [self._cluster.directory, self._cluster.containerd.directory, RUN]

    def _of_lab(self, *words: str) -> list[str]:
        return ["-n", self._lab.network.namespace, *words]

    def _of_node(self, *words: str) -> list[str]:
        return ["-n", self._namespace, *words]


__all__ = ["NAME", "NODE", "SecondNode"]
