"""What many nodes ask of the API server: the real volumes of each, with a virtual clock.

Simulated are mounts, records, the agent and the answers of the API server; what is asked, and when,
is decided by the driver's own code.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from credspec.kubernetes.api.client import ApiClient
from credspec.kubernetes.csi.agent_leases import AgentLeases
from credspec.kubernetes.csi.object_access import ObjectAccess
from credspec.kubernetes.csi.volume_mounts import VolumeMounts
from credspec.kubernetes.csi.volume_records import VolumeRecord, VolumeRecords
from credspec.kubernetes.csi.volume_request import FileOptions, Pod, VolumeRequest
from credspec.kubernetes.csi.volumes import REVIEW_SECONDS, Volumes
from support.webhook.reviews import gmsa

REPUBLISHED = 60.0, 90.0
"""How long the kubelet waits between two calls for a volume, in seconds."""

_OBJECT = json.dumps(gmsa("webapp01")).encode()


@dataclass
class Requests:
    """How many requests were sent in each second, and how many leases were made in each."""

    api: Counter[int] = field(default_factory=Counter)
    leases: Counter[int] = field(default_factory=Counter)

    def update(self, other: Requests) -> None:
        """Add those of other nodes."""
        self.api.update(other.api)
        self.leases.update(other.leases)


class _Node:
    """A node's mounts, records, agent, and what it asks the API server."""

    def __init__(self, requests: Requests) -> None:
        self.now = 0.0
        self._requests = requests
        self._bound: set[Path] = set()
        self._mounted: set[str] = set()
        self._records: dict[str, VolumeRecord] = {}
        access = ObjectAccess(cast("ApiClient", self), boottime=lambda: self.now)
        self.volumes = Volumes(
            access,
            cast("AgentLeases", _Leases(self)),
            cast("VolumeMounts", _Mounts(self._mounted, self._bound)),
            cast("VolumeRecords", _Records(self._records)),
            boottime=lambda: self.now,
        )

    def count(self, counter: Counter[int]) -> None:
        counter[math.floor(self.now)] += 1

    def lease_made(self) -> None:
        self.count(self._requests.leases)

    async def get(self, path: str) -> bytes:
        del path
        self.count(self._requests.api)
        return _OBJECT

    async def post(self, path: str, body: Any) -> Any:
        del path, body
        self.count(self._requests.api)
        return {"status": {"allowed": True}}


class _Leases:
    def __init__(self, node: _Node) -> None:
        self._node = node

    async def make(self, *_: Any) -> None:
        self._node.lease_made()

    async def has(self, lease_id: str) -> bool:
        del lease_id
        return True

    async def release(self, lease_id: str) -> None:
        del lease_id


class _Mounts:
    def __init__(self, mounted: set[str], bound: set[Path]) -> None:
        self._mounted, self._bound = mounted, bound

    def path(self, lease_id: str) -> Path:
        return Path(lease_id)

    def is_mounted(self, lease_id: str) -> bool:
        return lease_id in self._mounted

    def make(self, lease_id: str, options: FileOptions) -> None:
        del options
        self._mounted.add(lease_id)

    def remove(self, lease_id: str) -> None:
        self._mounted.discard(lease_id)

    def is_bound(self, lease_id: str, target: Path, *, is_read_only: bool) -> bool:
        del lease_id, is_read_only
        return target in self._bound

    def bind(self, lease_id: str, target: Path, *, is_read_only: bool) -> None:
        del lease_id, is_read_only
        self._bound.add(target)

    def unbind(self, target: Path) -> None:
        self._bound.discard(target)


class _Records:
    def __init__(self, kept: dict[str, VolumeRecord]) -> None:
        self._kept = kept

    def get(self, lease_id: str) -> VolumeRecord | None:
        return self._kept.get(lease_id)

    def write(self, record: VolumeRecord) -> None:
        self._kept[record.lease_id] = record

    def remove(self, lease_id: str) -> None:
        self._kept.pop(lease_id, None)


def simulate(nodes: int, pods: int, accounts: int, seconds: float, *, first: int = 0) -> Requests:
    """Restart every pod of some nodes once within some seconds, evenly, and count what is asked.

    Each node has pods of some service accounts, which were started at any time before: over longer
    than it takes until the API server is asked again, so that nothing is in step.
    """
    requests = Requests()
    # There is no thread to wait for here, and nobody reads what would be logged.
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(asyncio, "to_thread", _at_once)
        patches.setattr("credspec.kubernetes.csi.volumes.emit", lambda *_, **__: None)
        for number in range(first, first + nodes):
            asyncio.run(_node(requests, random.Random(number), pods, accounts, seconds))
    return requests


_BEFORE = 2 * REVIEW_SECONDS


async def _node(
    requests: Requests, chance: random.Random, pods: int, accounts: int, seconds: float
) -> None:
    node = _Node(requests)
    # When, which pod, which generation of it: what is published again, or anew in its place.
    queue = [(chance.uniform(-_BEFORE, 0), pod, 0, True) for pod in range(pods)]
    queue += [(chance.uniform(0, seconds), pod, 1, True) for pod in range(pods)]
    heapq.heapify(queue)
    newest = [0] * pods
    while queue:
        node.now, pod, generation, is_new = heapq.heappop(queue)
        if node.now >= seconds:
            return
        if is_new and generation:
            old = _request(pod, 0, accounts)
            await node.volumes.unpublish(old.volume_id, old.target)
            newest[pod] = generation
        if generation != newest[pod]:
            continue
        await node.volumes.publish(_request(pod, generation, accounts))
        again = node.now + chance.uniform(*REPUBLISHED)
        heapq.heappush(queue, (again, pod, generation, False))


def _request(pod: int, generation: int, accounts: int) -> VolumeRequest:
    uid = f"{pod}-{generation}"
    return VolumeRequest(
        volume_id=f"csi-{uid}",
        target=Path("/pods", uid),
        pod=Pod(namespace="shop", name=uid, uid=uid, service_account=f"web{pod % accounts}"),
        spec_name="webapp01",
        options=FileOptions(uid=0, gid=2000, mode=0o660),
    )


async def _at_once(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    return function(*arguments, **options)
