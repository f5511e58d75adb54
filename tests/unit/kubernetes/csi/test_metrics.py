"""The metrics of a node, read by HTTP, with the agent's own API beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from credspec.agent.doors.http.api import make_api
from credspec.agent.doors.http.server import serving_http
from credspec.config.policy import PolicyInForce
from credspec.errors import CredspecError
from credspec.http.client import HttpAnswer, HttpClient
from credspec.kubernetes.csi.metrics import NodeMetrics, serving_metrics
from credspec.kubernetes.csi.volume_records import VolumeRecord, VolumeRecords
from credspec.kubernetes.csi.volume_request import FileOptions, Pod
from credspec.sockets.listener import listen
from support.agent.scripted_leases import ScriptedLeases, directory_in_memory


class Node:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.records = VolumeRecords(directory / "csi")
        self.records.open()
        self.metrics = NodeMetrics(directory / "agent.sock", self.records, lambda: 7)
        self.address = ("", 0)

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[ScriptedLeases]:
        bench = ScriptedLeases(self.directory)
        with listen(self.directory / "agent.sock", others=False) as listener:
            api = make_api(bench.leases, bench.identities)
            async with serving_http(api, listener, PolicyInForce()):
                yield bench
        await bench.close()

    async def ask(self, method: str = "GET", path: str = "/metrics") -> HttpAnswer:
        client = HttpClient("http://{}:{}".format(*self.address), connections=1, kept=0)
        async with asyncio.timeout(60):
            return await client.request(method, path, headers={}, most_bytes=1 << 20)

    async def numbers(self) -> dict[tuple[str, ...], float]:
        answer = await self.ask()
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        return {
            (each.name, *each.labels.values()): each.value
            for family in text_string_to_metric_families(answer.body.decode())
            for each in family.samples
        }

    def volume(self, number: int, namespace: str, document: str = "x") -> None:
        self.records.write(
            VolumeRecord(
                volume_id=f"csi-{number}",
                target=Path("/x"),
                pod=Pod(namespace=namespace, name="web", uid=f"{number}", service_account="web"),
                spec_name="webapp01",
                options=FileOptions(uid=0, gid=0, mode=0o600),
                document=document,
            )
        )


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    with directory_in_memory() as directory:
        found = Node(directory)
        async with serving_metrics(found.metrics, ("127.0.0.1", 0)) as found.address:
            yield found


async def test_driver_and_agent_are_on_one_page(node: Node) -> None:
    node.metrics.answered("NodePublishVolume", "OK")
    node.metrics.answered("NodePublishVolume", "OK")
    node.metrics.answered("NodePublishVolume", "PERMISSION_DENIED")
    for number, namespace in enumerate(["shop", "shop", "bank"]):
        node.volume(number, namespace)
    node.volume(9, "bank", document="")  # not granted
    async with node.agent() as agent:
        await agent.leases.make(agent.request(1))
        found = await node.numbers()
    assert found["credspec_csi_agent_up",] == 1
    assert found["credspec_csi_volumes", "shop"] == 2
    assert found["credspec_csi_volumes", "bank"] == 1
    assert found["credspec_csi_calls_total", "NodePublishVolume", "OK"] == 2
    assert found["credspec_csi_calls_total", "NodePublishVolume", "PERMISSION_DENIED"] == 1
    assert found["credspec_csi_questions_total",] == 7
    assert found["credspec_leases",] == 1


async def test_an_agent_that_does_not_answer_is_seen(node: Node) -> None:
    found = await node.numbers()
    assert found["credspec_csi_agent_up",] == 0
    assert not any(name == "credspec_leases" for name, *_ in found)


async def test_there_is_nothing_else(node: Node) -> None:
    for path in ("/", "/metrics/", "/healthz", "/v1/leases"):
        assert (await node.ask(path=path)).status == 404
    for method in ("POST", "PUT", "DELETE"):
        answer = await node.ask(method)
        assert (answer.status, answer.headers["allow"]) == (405, "GET,HEAD")


async def test_connections_above_the_limit_are_closed(node: Node) -> None:
    held = [await asyncio.open_connection(*node.address) for _ in range(20)]
    ended = []
    for reader, _ in held[16:]:
        async with asyncio.timeout(60):
            ended.append(await reader.read())
    assert ended == [b""] * 4
    for _, writer in held:
        writer.close()


async def test_an_address_that_is_taken(node: Node) -> None:
    with pytest.raises(CredspecError) as caught:
        async with serving_metrics(node.metrics, node.address):
            pass
    assert caught.value.code == "csi-metrics-address"
