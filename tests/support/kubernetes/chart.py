"""The Helm chart, installed in a test cluster whose node is joined to the lab's domain."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import yaml

from credspec.agent.leases.mounts import mounted_below
from credspec.api_client import AgentClient
from credspec.lab.domain import Lab
from support.engines.containerd_engine import ContainerdEngine
from support.kubernetes.cluster import NODE, Cluster
from support.kubernetes.credspec_image import credspec_image
from support.kubernetes.programs import path_of

CHART = Path(__file__).parents[3] / "packaging/helm/credspec"
MANIFESTS = CHART.parents[1] / "kubernetes"
NAMESPACE = "credspec"
RUN = Path("/run/credspec")


class Chart:
    """What `helm install` makes; `values` are given by ``--set``."""

    def __init__(self, lab: Lab, cluster: Cluster) -> None:
        self.cluster = cluster
        self.values: dict[str, Any] = {
            "host.keytab": lab.host_keytab,
            "host.kubeletDirectory": cluster.kubelet_directory,
            "driver.reviewSeconds": 10,
        }
        self._environment = dict(os.environ) | {"HOME": str(cluster.directory)}

    def load_image(self, containerd: ContainerdEngine | None = None) -> None:
        """Give a node, by default the first one, the image that the chart names."""
        version = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))["appVersion"]
        (containerd or self.cluster.containerd).load(credspec_image(version), "k8s.io")

    def install(self, **more: Any) -> None:
        """Do as the chart's README says, and wait until all of it is ready."""
        cluster = self.cluster
        cluster.kubectl("create", "namespace", NAMESPACE)
        cluster.kubectl(
            *("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=privileged")
        )
        self.helm("install", "credspec", str(CHART), "--namespace", NAMESPACE, *self._set(more))
        self.wait_ready()

    def upgrade(self, **more: Any) -> None:
        """Change values, and wait until all is ready again."""
        self.helm("upgrade", "credspec", str(CHART), "--namespace", NAMESPACE, *self._set(more))
        self.wait_ready()

    def uninstall(self) -> None:
        """Remove it again."""
        self.helm("uninstall", "credspec", "--namespace", NAMESPACE, "--wait")

    def wait_ready(self) -> None:
        """Wait until agent, driver and webhook are."""
        self.wait_nodes()
        self._wait_rolled_out("deployment/credspec-webhook")
        self.cluster.wait(
            "the authority of the webhook",
            lambda: (
                "caBundle"
                in self.cluster.kubectl("get", "mutatingwebhookconfigurations", "-o", "yaml")
            ),
        )

    def wait_nodes(self) -> None:
        """Wait until agent and driver are ready."""
        self._wait_rolled_out("daemonset/credspec")
        self.wait_registered()

    def _wait_rolled_out(self, name: str) -> None:
        options = (name, "-n", NAMESPACE, "--timeout=240s")
        self.cluster.kubectl("rollout", "status", *options, seconds=260)

    def wait_registered(self, node: str = NODE) -> None:
        """Wait until a node's kubelet knows the driver."""
        query = ("get", "csinode", node, "-o", "yaml", "--ignore-not-found")
        self.cluster.wait(
            f"the registration on {node}",
            lambda: "credspec.dev" in self.cluster.kubectl(*query),
        )

    def helm(self, *arguments: str) -> str:
        """Run helm as administrator and return what it prints."""
        command = [str(path_of("helm")), f"--kubeconfig={self.cluster.kubeconfig}", *arguments]
        found = subprocess.run(
            command,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert found.returncode == 0, f"helm {' '.join(arguments)}: {found.stderr}"
        return found.stdout

    def node_pod(self, node: str = NODE) -> str:
        """Return the name of the DaemonSet's pod on a node."""
        found = self.cluster.kubectl(
            *("get", "pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=credspec-node"),
            *(f"--field-selector=status.phase=Running,spec.nodeName={node}", "-o", "name"),
        )
        return found.split()[0].removeprefix("pod/")

    def webhooks(self) -> list[str]:
        """Return the names of the webhook's pods that are to stay."""
        found = self.cluster.get(
            *("pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=credspec-webhook"),
            "--field-selector=status.phase=Running",
        )
        metadata = (each["metadata"] for each in found["items"])
        return sorted(each["name"] for each in metadata if "deletionTimestamp" not in each)

    def in_agent(self, *command: str, node: str = NODE) -> str:
        """Run a command in the agent's container on a node and return what it prints."""
        options = ("-n", NAMESPACE, "-c", "agent", self.node_pod(node), "--")
        return self.cluster.kubectl("exec", *options, *command)

    def status(self, node: str = NODE) -> Any:
        """Return what ``credspec status`` in the agent's container on a node says."""
        return json.loads(self.in_agent("credspec", "status", "--output", "json", node=node))

    def leases(self) -> list[str]:
        """Return whose leases the agent has; its socket is on the node."""
        found = AgentClient(RUN / "agent.sock").get("/v1/leases")["leases"]
        return sorted(each["container"] for each in found)

    def mounts(self) -> frozenset[str]:
        """Return what is mounted for volumes, as the node sees it."""
        return mounted_below(RUN / "volumes")

    def nothing_left(self) -> None:
        """Wait until no volume, lease or record is left of pods that are gone."""
        wait = self.cluster.wait
        wait(
            "the end of all volumes", lambda: not self.mounts(), context=lambda: str(self.mounts())
        )
        wait("the end of all leases", lambda: self.leases() == [])
        assert list((RUN / "volumes").iterdir()) == []
        assert list((RUN / "csi").iterdir()) == []

    def log(self, container: str) -> str:
        """Return the log of a container of the DaemonSet."""
        return self.cluster.kubectl("logs", self.node_pod(), "-n", NAMESPACE, "-c", container)

    def pid(self, container: str) -> int:
        """Return the process of a container of the DaemonSet."""
        found = self.cluster.get("pod", self.node_pod(), "-n", NAMESPACE)
        statuses = found["status"]["containerStatuses"]
        (identity,) = (each["containerID"] for each in statuses if each["name"] == container)
        return self.process_of(identity.rpartition("/")[2])

    def process_of(self, container_id: str) -> int:
        """Return the process of a container of the cluster."""
        listed = self.cluster.containerd.ctr("tasks", "ls", namespace="k8s.io").stdout
        lines = (line.split() for line in listed.splitlines())
        return next(int(line[1]) for line in lines if line[0] == container_id)

    def kill_process(self, container: str) -> int:
        """Kill a container's process and return its number."""
        pid = self.pid(container)
        os.kill(pid, signal.SIGKILL)
        return pid

    def kill(self, container: str) -> None:
        """Kill a container's process, and wait until the kubelet has started another one."""
        pid = self.kill_process(container)
        end = time.monotonic() + 240
        while True:
            try:
                if self.pid(container) != pid:
                    return
            except (StopIteration, ValueError, IndexError, AssertionError):
                pass
            assert time.monotonic() < end, f"{container} was not started again"
            time.sleep(0.2)

    def _set(self, more: dict[str, Any]) -> list[str]:
        named = self.values | {name.replace("__", "."): value for name, value in more.items()}
        return [f"--set={name}={value}" for name, value in named.items()]
