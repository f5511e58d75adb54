"""Nodes of a Docker Swarm: each a dockerd in a network namespace of its own, with its own agent."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from credspec.cli.new import NewSpecRequest, make_credential_spec
from credspec.lab.docker_engine import DockerEngine
from credspec.lab.domain import Lab
from credspec.lab.network import ip
from credspec.setup.docker import DockerSetup
from support.agent.agent_process import AgentProcess

POLICY = '[policy]\naccounts = ["WebApp0*"]\nspec_sources = ["file", "raw"]\n'
_SECONDS = 180
_STATES = "{{.Status}}"


class Node:
    """A dockerd and an agent; the shim is dockerd's default runtime, as the set-up makes it."""

    def __init__(self, lab: Lab, directory: Path, namespace: str, address: str) -> None:
        directory.mkdir()
        self.namespace, self.address = namespace, address
        self.agent = AgentProcess(lab, directory, extra=POLICY)
        self.specs = directory / "specs"
        for name, account in (("two", "WebApp02"), ("forbidden", "Forbidden01")):
            path = str(self.specs / f"{name}.json")
            make_credential_spec(NewSpecRequest(account_name=account, path=path))
        self.engine = DockerEngine(namespace)

    def start(self, image: bytes, name: str) -> None:
        self.agent.start()
        DockerSetup(
            run_directory=self.agent.run_directory,
            gateway_socket=self.agent.run_directory / "docker.sock",
            daemon_config=self.engine.daemon_config,
            launcher_directory=self.engine.directory / "libexec",
            context=None,
            set_as_default=True,
        ).apply()
        self.engine.start()
        self.engine.import_image(image, name)

    def set_default_runtime(self, name: str) -> None:
        """Choose another default runtime; dockerd reads it by SIGHUP."""
        document = json.loads(self.engine.daemon_config.read_text())
        document["default-runtime"] = name
        self.engine.daemon_config.write_text(json.dumps(document))
        pid = (self.engine.directory / "pid").read_text().strip()
        subprocess.run(["kill", "-HUP", pid], check=True)
        wait_for(lambda: self.docker("info", "--format", "{{.DefaultRuntime}}").strip() == name)

    def docker(self, *arguments: str) -> str:
        return self.engine.docker(*arguments).stdout.decode()

    def containers(self) -> list[str]:
        return self.docker("ps", "-q", "--no-trunc").split()

    def principals(self) -> list[str]:
        """The principals of the tickets in its containers, as `docker exec` sees them."""
        shown = [
            self.engine.docker("exec", each, "klist", check=False) for each in self.containers()
        ]
        lines = [line for each in shown for line in each.stdout.decode().splitlines()]
        return [line.split()[-1] for line in lines if line.startswith("Default principal")]

    def in_container(self, container: str, *command: str) -> str:
        """What a command prints in a container; nothing if that has ended meanwhile."""
        return self.engine.docker("exec", container, *command, check=False).stdout.decode()

    def acquisitions(self) -> int:
        return int(self.agent.client.get("/v1/identities")["acquisitions"])

    def close(self) -> None:
        self.engine.stop()
        self.agent.close()


def wait_for(condition: Callable[[], Any]) -> Any:
    """Return what a condition returns as soon as that is true."""
    end = time.monotonic() + _SECONDS
    while not (found := condition()):
        assert time.monotonic() < end, condition
        time.sleep(0.2)
    return found


@contextmanager
def swarm(lab: Lab, directory: Path, name: str, image: bytes, tag: str) -> Iterator[list[Node]]:
    """Run two nodes, the first of which is the manager; `tag` is the image's name there."""
    namespaces = [f"credspec-{name}-swarm{number}" for number in (1, 2)]
    with ExitStack() as stack:
        for namespace in namespaces:
            ip("netns", "add", namespace)
            stack.callback(ip, "netns", "del", namespace)
        first, second = namespaces
        ip(
            "-n",
            first,
            "link",
            "add",
            "eth0",
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            second,
        )
        nodes = []
        for number, namespace in enumerate(namespaces, 1):
            address = f"10.214.0.{number}"
            inside = ("-n", namespace)
            ip(*inside, "addr", "add", f"{address}/30", "dev", "eth0")
            for interface in ("lo", "eth0"):
                ip(*inside, "link", "set", interface, "up")
            ip(*inside, "route", "add", "default", "dev", "eth0")
            node = Node(lab, directory / f"node{number}", namespace, address)
            stack.callback(node.close)
            node.start(image, tag)
            nodes.append(node)
        manager, worker = nodes
        manager.docker("swarm", "init", f"--advertise-addr={manager.address}")
        token = manager.docker("swarm", "join-token", "-q", "worker").strip()
        joining = ("swarm", "join", f"--advertise-addr={worker.address}", "--token", token)
        # What takes more than dockerd's 20 s goes on in the background.
        worker.engine.docker(*joining, f"{manager.address}:2377", check=False)
        # Tasks are spread over the nodes that are ready when they are made, and stay there.
        wait_for(lambda: manager.docker("node", "ls", "--format", _STATES).split() == ["Ready"] * 2)
        yield nodes
