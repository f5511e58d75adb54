"""A real cluster of one node: etcd, API server, controller manager, scheduler, kubelet, containerd.

It runs in the lab's network namespace, beside the lab's domain; pods reach both.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from credspec.kubernetes.api.server import ApiServer
from credspec.lab.domain import Lab
from credspec.lab.namespaces import unmount_below
from credspec.setup.containerd import ContainerdSetup
from support.engines.containerd_engine import IMAGE, ContainerdEngine
from support.kubernetes.cluster_certificates import ClusterCertificates
from support.kubernetes.node import Node, NodePlan, share
from support.kubernetes.node_programs import NodePrograms
from support.kubernetes.programs import path_of

NODE = "node1"
_ETCD = "http://127.0.0.1:12379"
_ETCD_PEER = "http://127.0.0.1:12380"
# That of the Service `kubernetes`, whose address the lab's namespace has: there is no kube-proxy.
_PORT = 443
SERVICE_ADDRESS = "10.96.0.1"
_SECONDS = 300.0
_PODS = "10.214.0.0/24"
_AT_ONCE = ("--force", "--grace-period=0")


class Cluster:
    """A cluster in a directory of its own; `down` leaves nothing of it."""

    def __init__(self, lab: Lab, image: bytes) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="credspec-kube-", dir="/var/tmp"))
        self.directory.chmod(0o711)
        self.kubelet_directory = self.directory / "kubelet"
        self._lab = lab
        self._image = image
        self._address = lab.network.address
        self.url = f"https://{self._address}:{_PORT}"
        self.programs = NodePrograms(self.directory)
        self.certificates = ClusterCertificates(self.directory / "pki", self.url, self._address)
        self.kubeconfig = self.certificates.kubeconfig("/O=system:masters/CN=admin")
        self.containerd = ContainerdEngine(lab.network.namespace)
        plan = NodePlan(
            name=NODE,
            address=self._address,
            pods=_PODS,
            directory=self.directory / NODE,
            kubelet_directory=self.kubelet_directory,
        )
        self._node = Node(lab, plan, self.certificates, self.containerd)
        # For an agent of the node itself, which serves what the handler starts.
        self.host_agent = self.directory / "host-agent"
        self.host_agent.mkdir()
        ContainerdSetup(
            run_directory=self.host_agent / "run",
            config=self.containerd.config,
            launcher_directory=self.directory / "libexec",
        ).apply()

    def up(self) -> None:
        """Start it, and return when the node is ready and pods can be made."""
        self._ip("address", "add", f"{SERVICE_ADDRESS}/32", "dev", "lo")
        self._start_etcd()
        self._start_api_server()
        # Earlier, these two end themselves: their rights are made by the API server.
        self.wait("the API server", lambda: self._ask("get", "--raw=/readyz") == "ok")
        self._start_controllers()
        self.containerd.start()
        self.containerd.import_image(self._image)
        self.kubelet_directory.mkdir()
        # What driver, kubelet and containerd mount for pods must reach each other.
        share(self.kubelet_directory)
        self._run("kubelet", self._node.kubelet_command())
        self.wait_for_node(NODE)
        self.wait(
            "the service account",
            lambda: "default" in (self._ask("get", "serviceaccounts", "-o=name") or ""),
        )

    def wait_for_node(self, name: str) -> None:
        """Wait until pods can run on a node: it is ready, and the controllers know, too."""
        condition = '{.status.conditions[?(@.type=="Ready")].status}{.spec.taints}'
        self.wait(
            f"the node {name}",
            lambda: self._ask("get", "node", name, f"-o=jsonpath={condition}") == "True",
        )

    def wait_for_definitions(self, *names: str) -> None:
        """Wait until objects of definitions, such as ``podmonitors.monitoring.coreos.com``, exist.

        The API server lists a kind some time after it has established its definition.
        """
        every = ("api-resources", "--cached=false", "-o", "name")
        self.wait(
            f"definitions {names}",
            lambda: set(names) <= set(self.kubectl_result(*every).stdout.split()),
        )

    def down(self) -> None:
        """Delete the pods, stop everything, remove all."""
        if "kubelet" in self.programs.names():
            for kinds in ("daemonsets,deployments,jobs", "pods"):
                self._ask("delete", kinds, "--all", "--all-namespaces", *_AT_ONCE)
            with suppress(AssertionError):
                self.wait("the end of all pods", lambda: not self.pods(), seconds=60)
        # The API server would wait for its watches and keep its port; its data is not kept.
        for name in reversed(self.programs.names()):
            self.stop(name, signal.SIGTERM if name == "kubelet" else signal.SIGKILL)
        self.containerd.stop()
        _remove_network_namespaces()
        unmount_below(self.directory)
        shutil.rmtree(self.directory, ignore_errors=True)
        self._ip("link", "delete", "pods0")
        self._ip("address", "del", f"{SERVICE_ADDRESS}/32", "dev", "lo")
        self._node.remove_cgroups()

    def pods(self) -> list[str]:
        """Return the directories that the kubelet has of pods."""
        with suppress(FileNotFoundError):
            return sorted(path.name for path in (self.kubelet_directory / "pods").iterdir())
        return []

    def kubectl(self, *arguments: str, data: str | None = None, seconds: float = 120) -> str:
        """Run kubectl as administrator and return what it prints.

        Raises:
            AssertionError: it failed.
        """
        found = self.kubectl_result(*arguments, data=data, seconds=seconds)
        assert found.returncode == 0, f"kubectl {' '.join(arguments)}: {found.stderr}"
        return found.stdout

    def apply(self, *objects: dict[str, Any]) -> None:
        """Make objects, or change them."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "-f", "-", data=json.dumps(items))

    def delete(self, *objects: dict[str, Any]) -> None:
        """Remove objects, as far as there are any, and wait until they are gone."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("delete", "--ignore-not-found", "-f", "-", data=json.dumps(items))

    def get(self, *arguments: str) -> Any:
        """Return what ``kubectl get`` answers as JSON."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def events(self, pod: str, namespace: str = "default") -> str:
        """Return the messages of a pod's events, a line each."""
        items = self.get("events", "-n", namespace)["items"]
        return "\n".join(each["message"] for each in items if each["involvedObject"]["name"] == pod)

    def wait(
        self,
        what: str,
        condition: Callable[[], Any],
        seconds: float = _SECONDS,
        context: Callable[[], str] | None = None,
    ) -> None:
        """Wait until something is so.

        Raises:
            AssertionError: it is not, after so many seconds; with what `context` says.
        """
        end = time.monotonic() + seconds
        while not condition():
            self.programs.check()
            said = f"{what}: not within {seconds:.0f} s"
            assert time.monotonic() < end, f"{said}: {context()}" if context else said
            time.sleep(0.25)

    def log(self, name: str) -> str:
        """Return what a program has logged."""
        return self.programs.log(name)

    def pause(self, seconds: float) -> None:
        """Let time pass for what runs by its own clock."""
        time.sleep(seconds)

    def api_server(self, service_account: str, namespace: str) -> ApiServer:
        """Return the API server as a pod of a service account finds it."""
        token = self.directory / f"{namespace}-{service_account}.token"
        token.touch(mode=0o600)
        token.write_text(self.kubectl("create", "token", service_account, "-n", namespace))
        return ApiServer(self.url, self.certificates.authority.certificate, token)

    def stop(self, name: str, number: int = signal.SIGTERM) -> None:
        """End a program by a signal."""
        self.programs.stop(name, number)

    def restart(self, name: str) -> None:
        """Start a program again that was stopped."""
        self.programs.restart(name)

    def _ip(self, *arguments: str) -> None:
        command = ["ip", "-n", self._lab.network.namespace, *arguments]
        subprocess.run(command, check=False, capture_output=True)

    def _start_etcd(self) -> None:
        client = [f"--listen-client-urls={_ETCD}", f"--advertise-client-urls={_ETCD}"]
        peer = [f"--listen-peer-urls={_ETCD_PEER}", f"--initial-cluster=default={_ETCD_PEER}"]
        peer.append(f"--initial-advertise-peer-urls={_ETCD_PEER}")
        data = [f"--data-dir={self.directory / 'etcd'}", "--unsafe-no-fsync", "--log-level=warn"]
        self._run("etcd", [str(path_of("etcd")), *data, *client, *peer])

    def _start_api_server(self) -> None:
        made = self.certificates
        authority = made.authority.certificate
        options: dict[str, object] = {
            "etcd-servers": _ETCD,
            "secure-port": _PORT,
            "advertise-address": self._address,
            "bind-address": "0.0.0.0",  # noqa: S104 - of the lab's network
            "tls-cert-file": made.api_server[0],
            "tls-private-key-file": made.api_server[1],
            "client-ca-file": authority,
            "kubelet-client-certificate": made.to_kubelet[0],
            "kubelet-client-key": made.to_kubelet[1],
            "kubelet-certificate-authority": authority,
            "kubelet-preferred-address-types": "InternalIP",
            "requestheader-client-ca-file": authority,
            "requestheader-allowed-names": "front-proxy-client",
            "requestheader-username-headers": "X-Remote-User",
            "requestheader-group-headers": "X-Remote-Group",
            "requestheader-extra-headers-prefix": "X-Remote-Extra-",
            "proxy-client-cert-file": made.front_proxy[0],
            "proxy-client-key-file": made.front_proxy[1],
            # Webhooks are called at their endpoints, without a kube-proxy.
            "enable-aggregator-routing": "true",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-signing-key-file": made.service_accounts,
            "service-account-key-file": made.service_accounts_public,
            "service-cluster-ip-range": "10.96.0.0/24",
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "allow-privileged": "true",
        }
        command = [f"--{name}={value}" for name, value in options.items()]
        self._run("kube-apiserver", [str(path_of("kube-apiserver")), *command])

    def _start_controllers(self) -> None:
        for name in ("kube-controller-manager", "kube-scheduler"):
            config = self.certificates.kubeconfig(f"/CN=system:{name}")
            options = [f"--{kind}kubeconfig={config}" for kind in ("", "authentication-")]
            options += [f"--authorization-kubeconfig={config}", "--leader-elect=false"]
            options.append("--bind-address=127.0.0.1")
            if name == "kube-controller-manager":
                key, authority = self.certificates.service_accounts, self.certificates.authority
                options.append(f"--service-account-private-key-file={key}")
                options.append(f"--root-ca-file={authority.certificate}")
                options.append("--use-service-account-credentials=true")
            self._run(name, [str(path_of(name)), *options])

    def in_network(self, command: list[str]) -> list[str]:
        """Return the command that runs a program where pods and webhooks can be reached.

        Outside, their addresses are anybody's: a machine's gateway may answer for them.
        """
        return ["nsenter", f"--net=/run/netns/{self._lab.network.namespace}", *command]

    def _run(self, name: str, command: list[str]) -> None:
        self.programs.run(name, self.in_network(command))

    def kubectl_result(
        self, *arguments: str, data: str | None = None, seconds: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as administrator, whatever comes of it."""
        command = [str(path_of("kubectl")), f"--kubeconfig={self.kubeconfig}", *arguments]
        environment = dict(os.environ) | {"HOME": str(self.directory)}  # its cache
        return subprocess.run(
            command,
            input=data,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )

    def _ask(self, *arguments: str) -> str | None:
        found = self.kubectl_result(*arguments)
        return found.stdout.strip() if found.returncode == 0 else None


def _remove_network_namespaces() -> None:
    """Remove those of pods that containerd was stopped with: such as are mounted here."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    for path in {line.split()[4] for line in lines}:
        if path.startswith("/run/netns/cni-"):
            subprocess.run(["umount", "--lazy", path], check=False, capture_output=True)
            Path(path).unlink(missing_ok=True)


__all__ = ["IMAGE", "NODE", "Cluster"]
