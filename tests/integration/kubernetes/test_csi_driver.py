"""The driver's process and the agent's, with real mounts and real tickets.

The kubelet's calls are made by the test, and the API server is simulated.
"""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from credspec.agent.leases.mounts import mounted_below
from credspec.kerberos.krb5_conf import AgentKrb5Conf
from credspec.lab.domain import Lab
from support.agent.agent_process import AgentProcess
from support.domain.loopback_addresses import listen
from support.kubernetes.driver_process import DriverProcess
from support.kubernetes.publish_requests import publish_request, target_in
from support.kubernetes.simulated_api_server import SimulatedApiServer, serving_in_a_thread
from support.servers.certificate_authority import make_authority

VOLUME = "csi-0123"
POLICY = '[policy]\nspec_sources = ["kubernetes"]\n'


class Node:
    """A node with its agent, its driver and its kubelet's directories."""

    def __init__(self, lab: Lab, directory: Path, kubelet: Path) -> None:
        self.agent = AgentProcess(lab, directory, extra=POLICY)
        self.server = SimulatedApiServer(directory, make_authority(directory / "ca"))
        document = (directory / "specs" / "one.json").read_text()
        self.server.objects["webapp01"] = json.loads(document)
        self.server.bound.add(("shop", "web", "webapp01"))
        self.kubelet = kubelet
        self.driver: DriverProcess | None = None
        self.options: tuple[str, ...] = ()

    def start(self, *options: str) -> DriverProcess:
        self.agent.start()
        self.driver = DriverProcess(
            self.kubelet, self.server.server, self.agent.config, options=options or self.options
        )
        self.target = target_in(self.driver.pods)
        self.target.parent.mkdir(parents=True)
        self.driver.start()
        return self.driver

    def close(self) -> None:
        if self.driver is not None:
            self.driver.stop()
        self.agent.close()
        for directory in (self.kubelet, self.agent.run_directory):
            for name in mounted_below(directory):
                subprocess.run(["umount", "-l", str(directory / name)], check=False)

    def mounts(self) -> list[str]:
        found = mounted_below(self.kubelet) | mounted_below(self.agent.run_directory / "volumes")
        return sorted(found)

    def in_the_pod(self, *command: str) -> str:
        """Run a program as a pod's would, that is not root's and has the fsGroup 2000."""
        script = 'mount --bind "$0" /mnt && exec "$@"'
        user = ["setpriv", "--reuid=1000", "--regid=1000", "--groups=2000"]
        variables = ["env", "KRB5CCNAME=/mnt/krb5cc", "KRB5_CONFIG=/mnt/krb5.conf"]
        argv = ["unshare", "--mount", "sh", "-c", script, str(self.target)]
        found = subprocess.run(
            [*argv, *user, *variables, *command], capture_output=True, text=True, check=False
        )
        assert found.returncode == 0, found.stderr
        return found.stdout


@pytest.fixture
def node(lab: Lab, krb5_conf: AgentKrb5Conf, tmp_path: Path) -> Iterator[Node]:
    # A socket's path has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="credspec-kubelet-", dir="/var/tmp") as directory:
        found = Node(lab, tmp_path, Path(directory))
        with serving_in_a_thread(found.server):
            try:
                yield found
            finally:
                found.close()


def test_a_pod_is_the_gmsa_through_every_kill_and_restart(node: Node) -> None:
    driver = node.start()
    request = publish_request(driver.pods, group="2000")
    driver.publish(request)
    assert "WebApp01$@EXAMPLE.TEST" in node.in_the_pod("klist")
    # A service ticket, which the group may keep in the cache.
    node.in_the_pod("kvno", "ldap/dc1.example.test")
    assert "ldap/dc1.example.test" in node.in_the_pod("klist")
    first = (node.target / "krb5cc").read_bytes()

    driver.stop(signal.SIGKILL)
    driver.start()
    driver.publish(request)
    assert (node.target / "krb5cc").read_bytes() == first
    assert len(node.server.asked) == 2, "one review, one object"

    node.agent.end(signal.SIGKILL)
    node.agent.start()
    assert node.agent.lease_containers() == ["shop/web-0"]
    driver.publish(request)
    assert (node.target / "krb5cc").read_bytes() == first

    node.agent.end(signal.SIGKILL)
    driver.stop(signal.SIGKILL)
    driver.start()
    driver.unpublish(VOLUME, node.target)
    assert node.mounts() == []
    assert not node.target.exists()
    node.agent.start()
    assert node.agent.lease_containers() == []
    # That the container was gone at the start is written beside the first answers.
    end = time.monotonic() + 60
    while (found := decisions(node.agent))[-1:] == ["granted"]:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert found == ["granted", "released"]


def decisions(agent: AgentProcess) -> list[str]:
    """Return the decisions in the audit log."""
    return [json.loads(line)["decision"] for line in agent.audit_log.read_text().splitlines()]


def test_a_pod_with_tickets_of_services_has_no_tgt(node: Node) -> None:
    driver = node.start()
    service = "postgres/db.example.test"
    attributes: dict[str, str | None] = {"tickets": "services", "services": service}
    request = publish_request(driver.pods, attributes, group="2000")
    driver.publish(request)
    shown = node.in_the_pod("klist")
    assert "WebApp01$@EXAMPLE.TEST" in shown
    assert f"{service}@EXAMPLE.TEST" in shown
    assert "krbtgt" not in shown
    # The driver remembers it, and so does the agent.
    driver.stop(signal.SIGKILL)
    driver.start()
    node.agent.end(signal.SIGKILL)
    node.agent.start()
    driver.publish(request)
    assert b"krbtgt" not in (node.target / "krb5cc").read_bytes()
    [lease] = node.agent.client.get("/v1/leases")["leases"]
    assert (lease["tickets"], lease["services"]) == ("services", [service])


def test_who_may_not_use_the_object_is_refused_with_the_reason(node: Node) -> None:
    node.server.bound.clear()
    driver = node.start()
    with pytest.raises(grpc.RpcError) as caught:
        driver.publish(publish_request(driver.pods))
    found = caught.value
    assert found.code() is grpc.StatusCode.PERMISSION_DENIED  # type: ignore[attr-defined]
    assert "[csi-use-not-permitted]" in found.details()  # type: ignore[attr-defined]
    assert node.mounts() == []
    assert node.agent.lease_containers() == []


def test_the_kubelets_selinux_context_is_taken_where_the_kernel_has_none(node: Node) -> None:
    """What a kernel with SELinux does with it is not tested; anything else is refused there too."""
    driver = node.start()
    label = "system_u:object_r:container_file_t:s0:c1,c2"
    driver.publish(publish_request(driver.pods, group="2000", flags=(f'context="{label}"',)))
    assert "WebApp01$@EXAMPLE.TEST" in node.in_the_pod("klist")
    driver.unpublish(VOLUME, node.target)
    with pytest.raises(grpc.RpcError) as caught:
        driver.publish(publish_request(driver.pods, flags=("suid",)))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
    assert node.mounts() == []


def test_agent_and_driver_that_end_together_leave_nothing_on_the_node(node: Node) -> None:
    node.options = ("--node-run-directory", str(node.agent.run_directory))
    driver = node.start()
    driver.publish(publish_request(driver.pods))
    plugin = driver.socket.parent
    # A pod lives: agent and driver of the next version find all of it again.
    node.agent.end()
    driver.stop()
    assert node.mounts() != []
    assert not plugin.exists()
    node.agent.start()
    driver.start()
    assert node.agent.lease_containers() == ["shop/web-0"]
    driver.unpublish(VOLUME, node.target)
    node.agent.end()
    driver.stop()
    assert not node.agent.run_directory.exists()
    assert not plugin.exists()
    # An upgrade with no pod in between: the next ones make it again.
    node.agent.start()
    driver.start()
    driver.publish(publish_request(driver.pods))
    assert node.agent.lease_containers() == ["shop/web-0"]
    driver.unpublish(VOLUME, node.target)


def test_one_page_has_the_metrics_of_driver_and_agent(node: Node) -> None:
    # Of an address of its own: another test could take a port that is free for the moment.
    host, [free] = listen("127.93.0", 9477)
    free.close()
    address = f"{host}:9477"

    def numbers() -> list[str]:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=60) as answer:
            return answer.read().decode().splitlines()

    driver = node.start(f"--metrics-listen={address}")
    driver.publish(publish_request(driver.pods))
    found = numbers()
    for line in (
        "credspec_csi_agent_up 1.0",
        'credspec_csi_volumes{pod_namespace="shop"} 1.0',
        'credspec_csi_calls_total{call="NodePublishVolume",status="OK"} 1.0',
        "credspec_csi_questions_total 2.0",
        "credspec_leases 1.0",
    ):
        assert line in found
    assert any(line.startswith('credspec_domain_up{domain="example.test"}') for line in found)
    node.agent.end(signal.SIGKILL)
    found = numbers()
    assert "credspec_csi_agent_up 0.0" in found
    assert "credspec_leases 1.0" not in found
