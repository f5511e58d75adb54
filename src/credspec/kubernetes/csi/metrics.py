"""The metrics of a node on a port of its own: the driver's, and those of the agent beside it.

The agent has no port: it serves its socket alone, and is asked here at each scrape. A scrape of a
node whose agent does not answer says so.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from credspec.errors import CredspecError
from credspec.http.client import HttpClient, TooLongError
from credspec.http.connection import ConnectionTimes, HttpConnection
from credspec.http.messages import HttpError, Request, Response
from credspec.kubernetes.csi.volume_records import VolumeRecords
from credspec.metrics_text import CONTENT_TYPE, Metric, Sample, counter, gauge, metrics_text

AGENT_SECONDS: Final = 5.0
"""How long the agent has for its part; Prometheus waits for ten seconds."""

_MOST_BYTES: Final = 16 * 1024 * 1024
_MOST_CONNECTIONS: Final = 16
_TIMES: Final = ConnectionTimes(head=5.0, unread_body=1.0, answer=10.0, head_bytes=8 * 1024)


class NodeMetrics:
    """What the driver counts; `questions` is how many the API server was sent so far."""

    def __init__(
        self, agent_socket: Path, records: VolumeRecords, questions: Callable[[], int]
    ) -> None:
        self._agent = HttpClient(agent_socket, connections=_MOST_CONNECTIONS, kept=0)
        self._records = records
        self._questions = questions
        self._calls: Counter[tuple[str, str]] = Counter()

    def answered(self, call: str, status: str) -> None:
        """Count a call of the kubelet's, by its name and gRPC status."""
        self._calls[call, status] += 1

    async def text(self) -> bytes:
        """Return all in Prometheus' text format."""
        agent = await self._agents()
        volumes = await asyncio.to_thread(self._volumes)
        own = (
            gauge("credspec_csi_agent_up", "Whether the node's agent answers.", agent is not None),
            Metric(
                "credspec_csi_volumes",
                "gauge",
                "Volumes of pods on the node, by the namespace of the pods.",
                [Sample(count, {"pod_namespace": name}) for name, count in volumes.items()],
            ),
            Metric(
                "credspec_csi_calls_total",
                "counter",
                "Calls of the kubelet, by their gRPC status.",
                [
                    Sample(count, {"call": call, "status": status})
                    for (call, status), count in self._calls.items()
                ],
            ),
            counter(
                "credspec_csi_questions",
                "Requests sent to the API server, repeated ones included.",
                self._questions(),
            ),
        )
        return metrics_text(own) + (agent or b"")

    async def _agents(self) -> bytes | None:
        with suppress(OSError, TooLongError):
            async with asyncio.timeout(AGENT_SECONDS):
                answer = await self._agent.request(
                    "GET", "/metrics", headers={}, most_bytes=_MOST_BYTES
                )
            if answer.status == 200:  # noqa: PLR2004 - OK
                return answer.body
        return None

    def _volumes(self) -> Counter[str]:
        return Counter(record.pod.namespace for record in self._records.all() if record.is_granted)


@asynccontextmanager
async def serving_metrics(
    metrics: NodeMetrics, address: tuple[str, int]
) -> AsyncIterator[tuple[str, int]]:
    """Serve ``/metrics`` while the block runs; its value is address and port.

    Raises:
        CredspecError: `csi-metrics-address`.
    """
    open_ones: set[asyncio.Task[None]] = set()

    async def answer(request: Request) -> Response:
        if request.target != "/metrics":
            return _refuse(HttpError(404))
        if request.method not in {"GET", "HEAD"}:
            return _refuse(HttpError(405, "GET,HEAD"))
        return Response(body=await metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(open_ones) >= _MOST_CONNECTIONS:
            writer.transport.abort()
            return
        open_ones.add(task)
        try:
            await HttpConnection(reader, writer, answer, _refuse, _TIMES).serve()
        finally:
            open_ones.discard(task)

    try:
        server = await asyncio.start_server(connected, *address, reuse_address=True)
    except OSError as error:
        raise CredspecError.of(
            "csi-metrics-address",
            error.strerror or str(error),
            where="{}:{}".format(*address),
            expected="an address and a port that are free",
            remedy="choose others with --metrics-listen, in the chart metrics.port",
        ) from None
    try:
        yield server.sockets[0].getsockname()[:2]
    finally:
        server.close()
        left = list(open_ones)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def _refuse(error: HttpError) -> Response:
    headers = {"Content-Type": "text/plain"} | ({"Allow": error.allow} if error.allow else {})
    return Response(error.status, f"{error.reason}\n".encode(), headers)
