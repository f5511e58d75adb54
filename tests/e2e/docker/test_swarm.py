"""Swarm services with a credential spec, on two nodes with an agent each, through the gateway."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from credspec.contract.names import NEEDS_RUNTIME
from credspec.lab.domain import Lab
from support.engines.docker_gateway import docker, running_gateway
from support.engines.swarm_nodes import Node, swarm, wait_for

pytestmark = pytest.mark.timeout(900)  # two engines, and rolling updates that take their time

IMAGE = "kerberos-client"
FIRST, SECOND = "WebApp01$@EXAMPLE.TEST", "WebApp02$@EXAMPLE.TEST"
OPTIONS = ("--detach", "--no-resolve-image", "--name=web", "--stop-grace-period=1s")
OPTIONS += ("--update-monitor=1s",)
SLEEP = (IMAGE, "sleep", "100000")
ONCE = ("--restart-condition=none",)


class Swarm:
    def __init__(self, nodes: list[Node], gateway: Path) -> None:
        self.manager, self.worker = self.nodes = nodes
        self.gateway = gateway

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the docker command through the gateway of the manager."""
        return docker(self.gateway, *arguments)

    def create(self, spec: str, *options: str, command: tuple[str, ...] = SLEEP) -> None:
        done = self("service", "create", *OPTIONS, "--credential-spec", spec, *options, *command)
        assert done.returncode == 0, done.stderr

    def update(self, *options: str) -> None:
        def is_done() -> bool:
            done = self("service", "update", "--detach", *options, "web")
            if "update out of sequence" in done.stderr:
                # The update before ended between the command's look at the service and its request.
                return False
            assert done.returncode == 0, done.stderr
            return True

        wait_for(is_done)

    def principals(self) -> list[list[str]]:
        return [sorted(node.principals()) for node in self.nodes]

    def error(self) -> str:
        """Wait for a task of `web` that failed; return why."""
        shown = ("service", "ps", "--no-trunc", "--format", "{{.Error}}", "web")

        def error() -> str:
            return self(*shown).stdout.strip()

        return str(wait_for(error))

    def inspect(self) -> Any:
        return json.loads(self("service", "inspect", "web").stdout)[0]["Spec"]

    def clear(self) -> None:
        for name in self("service", "ls", "-q").stdout.split():
            self("service", "rm", name)
        wait_for(lambda: not any(node.containers() for node in self.nodes))
        wait_for(lambda: not any(node.agent.lease_containers() for node in self.nodes))


@pytest.fixture(scope="module")
def running(
    lab: Lab, lab_name: str, client_image: bytes, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Swarm]:
    directory = tmp_path_factory.mktemp("swarm")
    with swarm(lab, directory, lab_name, client_image, IMAGE) as nodes:
        manager = nodes[0]
        gateway = directory / "gateway.sock"
        with running_gateway(gateway, manager.engine.socket, manager.specs):
            yield Swarm(nodes, gateway)


@pytest.fixture
def service(running: Swarm) -> Iterator[Swarm]:
    yield running
    running.clear()


def test_tasks_on_both_nodes_have_tickets_and_each_node_reads_once(service: Swarm) -> None:
    before = [node.acquisitions() for node in service.nodes]
    service.create("file://one.json", "--replicas=20")
    wait_for(lambda: service.principals() == [[FIRST] * 10] * 2)
    assert [node.acquisitions() for node in service.nodes] == [count + 1 for count in before]
    service("service", "scale", "--detach", "web=4")
    wait_for(lambda: service.principals() == [[FIRST] * 2] * 2)
    spec = service.inspect()["TaskTemplate"]["ContainerSpec"]
    assert spec["Privileges"]["CredentialSpec"]["File"] == "one.json"
    assert not {"Env", "Mounts", "Sysctls"} & {*spec}

    # A rolling update to another spec, then one of something else, which keeps it.
    service.update("--credential-spec=file://two.json", "--update-parallelism=1")
    wait_for(lambda: service.principals() == [[SECOND] * 2] * 2)
    service.update("--env-add=COLOUR=green")
    wait_for(lambda: service.inspect()["TaskTemplate"]["ContainerSpec"].get("Env"))

    def is_green() -> bool:
        found = [
            node.in_container(each, "env") for node in service.nodes for each in node.containers()
        ]
        return len(found) == 4 and all("COLOUR=green" in text for text in found)

    wait_for(is_green)
    wait_for(lambda: service.principals() == [[SECOND] * 2] * 2)

    # Without a spec there are no tickets, and nothing that the gateway had added.
    service.update("--credential-spec=")
    wait_for(lambda: not any(node.agent.lease_containers() for node in service.nodes))
    seen = json.loads(service.manager.docker("service", "inspect", "web"))[0]["Spec"]
    assert seen["Labels"] == {}
    assert seen["TaskTemplate"]["ContainerSpec"]["Env"] == ["COLOUR=green"]


def test_a_node_is_drained(service: Swarm) -> None:
    service.create("file://one.json", "--replicas=4")
    wait_for(lambda: service.principals() == [[FIRST] * 2] * 2)
    names = service.manager.docker("node", "ls", "--format", "{{.ID}} {{.ManagerStatus}}")
    (worker,) = [line.split()[0] for line in names.splitlines() if "Leader" not in line]
    try:
        service.manager.docker("node", "update", "--availability=drain", worker)
        wait_for(lambda: service.principals() == [[FIRST] * 4, []])
        wait_for(lambda: not service.worker.agent.lease_containers())
    finally:
        service.manager.docker("node", "update", "--availability=active", worker)


def test_a_config_goes_with_the_tasks(service: Swarm) -> None:
    done = service("config", "create", "www", str(service.manager.specs / "one.json"))
    assert done.returncode == 0, done.stderr
    try:
        service.create("config://www", "--replicas=2")
        wait_for(lambda: service.principals() == [[FIRST]] * 2)
        assert (
            "Config"
            in service.inspect()["TaskTemplate"]["ContainerSpec"]["Privileges"]["CredentialSpec"]
        )
    finally:
        service.clear()
        service("config", "rm", "www")


def test_a_stack(service: Swarm, tmp_path: Path) -> None:
    file = tmp_path / "stack.yaml"
    file.write_text(
        "version: '3.8'\n"
        f"services:\n  one: &one\n    image: {IMAGE}\n    command: sleep 100000\n"
        "    stop_grace_period: 1s\n"
        "    credential_spec: {file: one.json}\n"
        "  two:\n    <<: *one\n    credential_spec: {config: www}\n"
        f"configs:\n  www: {{file: {service.manager.specs / 'two.json'}}}\n"
    )
    deploy = ("stack", "deploy", "--resolve-image=never", "-c", str(file), "stack")
    try:
        for _ in range(2):  # a second time changes nothing
            done = service(*deploy)
            assert done.returncode == 0, done.stderr
            wait_for(lambda: Counter(chain(*service.principals())) == {FIRST: 1, SECOND: 1})
    finally:
        service("stack", "rm", "stack")


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("file://missing.json", "no such file or directory"),
        ("file://forbidden.json", "[policy-account]"),
    ],
)
def test_a_task_says_why_it_has_no_identity(service: Swarm, spec: str, reason: str) -> None:
    service.create(spec, *ONCE)
    assert reason in service.error()
    assert not any(node.containers() for node in service.nodes)


def test_a_task_on_a_node_without_the_runtime_fails_and_says_so(service: Swarm) -> None:
    service.worker.set_default_runtime("runc")
    try:
        service.create("file://one.json", *ONCE, "--constraint=node.role==worker")
        assert NEEDS_RUNTIME in service.error()
        assert not service.worker.containers()
    finally:
        service.worker.set_default_runtime("credspec")


@pytest.mark.parametrize(
    ("spec", "code"),
    [("registry://www", "[spec-reference-registry]"), ("raw://{}", "raw")],
)
def test_what_no_service_can_have_is_refused_at_once(running: Swarm, spec: str, code: str) -> None:
    done = running("service", "create", *OPTIONS, "--credential-spec", spec, *SLEEP)
    assert done.returncode != 0
    assert code in done.stderr


def test_an_ordinary_service_is_as_before(service: Swarm) -> None:
    done = service("service", "create", *OPTIONS, *SLEEP)
    assert done.returncode == 0, done.stderr
    wait_for(lambda: sum(len(node.containers()) for node in service.nodes) == 1)
    assert not any(node.agent.lease_containers() for node in service.nodes)
