"""Pods of a real cluster with inline volumes, through the driver's process and the agent's."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from credspec.agent.leases.mounts import mounted_below
from credspec.kerberos.krb5_conf import AgentKrb5Conf
from credspec.lab.domain import Lab
from support.agent.agent_process import AgentProcess
from support.kubernetes.cluster import IMAGE, Cluster
from support.kubernetes.driver_process import DriverProcess
from support.kubernetes.manifests import custom_resource, driver_objects, pod, right_to_use

pytestmark = pytest.mark.timeout(1200)

SPEC = "webapp01"
DEFAULT = "Default principal: WebApp01$@EXAMPLE.TEST"


class Node:
    """The cluster's node with credspec's parts."""

    def __init__(self, lab: Lab, directory: Path, cluster: Cluster) -> None:
        policy = '[policy]\nspec_sources = ["kubernetes"]\n'
        self.cluster = cluster
        self.agent = AgentProcess(lab, directory, extra=policy)
        self.agent.start()
        cluster.apply(custom_resource())
        cluster.apply(*driver_objects())
        cluster.wait_for_definitions("gmsacredentialspecs.windows.k8s.io")
        self.document = json.loads((directory / "specs" / "one.json").read_text())
        self.make_object()
        cluster.apply(*right_to_use(SPEC))
        self.driver = DriverProcess(
            cluster.kubelet_directory,
            cluster.api_server("credspec-csi", "credspec"),
            self.agent.config,
            options=("--review-seconds", "10"),
        )
        self.driver.start()
        cluster.wait(
            "the registration",
            lambda: "credspec.dev" in cluster.kubectl("get", "csinode", "-o", "yaml"),
        )

    def make_object(self, document: Any = None) -> None:
        self.cluster.apply(
            {
                "apiVersion": "windows.k8s.io/v1",
                "kind": "GMSACredentialSpec",
                "metadata": {"name": SPEC},
                "credspec": document or self.document,
            }
        )

    def start(self, name: str) -> None:
        self.cluster.apply(pod(name, SPEC, IMAGE))

    def run(self, name: str) -> None:
        """Make a pod and wait until it has shown its tickets."""
        self.start(name)
        self.cluster.wait("its tickets", lambda: DEFAULT in self.logs(name))

    def logs(self, name: str) -> str:
        found = self.cluster.kubectl_result("logs", name)
        return found.stdout if found.returncode == 0 else ""

    def klist(self, name: str) -> str:
        found = self.cluster.kubectl_result("exec", name, "--", "klist")
        return found.stdout if found.returncode == 0 else ""

    def mounts(self) -> frozenset[str]:
        return mounted_below(self.agent.run_directory / "volumes")

    def nothing_left(self) -> None:
        self.cluster.wait("the end of all volumes", lambda: not self.mounts())
        self.cluster.wait("the end of all pods", lambda: not self.cluster.pods())
        self.cluster.wait("the end of all leases", lambda: self.agent.lease_containers() == [])

    def close(self) -> None:
        """Leave the cluster as it was: the chart's own objects have the same names."""
        self.cluster.delete(*right_to_use(SPEC), *driver_objects(), custom_resource())
        self.driver.stop()
        self.agent.close()


@pytest.fixture(scope="module")
def node(lab: Lab, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    path = tmp_path_factory.mktemp("krb5") / "krb5.conf"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("KRB5_CONFIG", f"{path}:{lab.krb5_conf}")
        AgentKrb5Conf(path).set_kdcs(lab.realm, [lab.dc_address])
        found = Node(lab, tmp_path_factory.mktemp("node"), cluster)
        yield found
        found.close()


def test_a_pod_has_the_gmsa_and_kubectl_exec_too(node: Node) -> None:
    node.run("web")
    assert DEFAULT in node.klist("web")
    assert node.agent.lease_containers() == ["default/web"]
    node.cluster.kubectl("delete", "pod", "web")
    node.nothing_left()


def test_a_refusal_is_an_event_of_the_pod(node: Node) -> None:
    node.cluster.kubectl("delete", "rolebinding", f"use-{SPEC}", "-n", "default")
    node.start("web")
    node.cluster.wait("the event", lambda: "csi-use-not-permitted" in node.cluster.events("web"))
    assert "PermissionDenied" in node.cluster.events("web")
    # It runs as soon as it may.
    node.cluster.apply(*right_to_use(SPEC))
    node.cluster.wait("its tickets", lambda: DEFAULT in node.logs("web"))
    node.cluster.kubectl("delete", "pod", "web")
    node.nothing_left()


def test_a_revoked_use_takes_the_tickets_of_a_pod_that_lives(node: Node) -> None:
    node.run("web")
    node.cluster.kubectl("delete", "rolebinding", f"use-{SPEC}", "-n", "default")
    node.cluster.wait("the end of its tickets", lambda: DEFAULT not in node.klist("web"))
    node.cluster.wait("the event", lambda: "csi-use-not-permitted" in node.cluster.events("web"))
    node.cluster.apply(*right_to_use(SPEC))
    node.cluster.wait("its tickets", lambda: DEFAULT in node.klist("web"))
    node.cluster.kubectl("delete", "pod", "web")
    node.nothing_left()


def test_kills_of_driver_agent_and_kubelet(node: Node) -> None:
    node.run("web")
    node.driver.stop(signal.SIGKILL)
    node.agent.end(signal.SIGKILL)
    node.cluster.stop("kubelet", signal.SIGKILL)
    node.cluster.restart("kubelet")
    node.agent.start()
    node.driver.start()
    node.cluster.wait("its tickets", lambda: DEFAULT in node.klist("web"))
    assert node.agent.lease_containers() == ["default/web"]
    node.run("second")
    node.cluster.kubectl("delete", "pods", "web", "second")
    node.nothing_left()


def test_a_pod_deleted_by_force_while_nobody_is_there(node: Node) -> None:
    node.run("web")
    node.driver.stop(signal.SIGKILL)
    node.cluster.stop("kubelet", signal.SIGKILL)
    node.cluster.kubectl("delete", "pod", "web", "--force", "--grace-period=0")
    node.cluster.restart("kubelet")
    node.driver.start()
    node.nothing_left()
