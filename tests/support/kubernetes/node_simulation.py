"""What many nodes ask of the API server and of their domain, with a virtual clock.

Simulated are mounts, records, the agent's doors, and the answers; what is asked, and when, is
decided by the code of driver, webhook and agent.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from credspec.agent.controller_watch import watch_controllers
from credspec.agent.home_domain_watch import HomeDomainWatch
from credspec.agent.identities.identities import Identities
from credspec.agent.identities.refresh_schedule import RefreshSchedule
from credspec.kubernetes.api.client import ApiClient
from credspec.kubernetes.csi.agent_leases import AgentLeases
from credspec.kubernetes.csi.object_access import ObjectAccess
from credspec.kubernetes.csi.volume_mounts import VolumeMounts
from credspec.kubernetes.csi.volume_records import VolumeRecord, VolumeRecords
from credspec.kubernetes.csi.volume_request import FileOptions, Pod, VolumeRequest
from credspec.kubernetes.csi.volumes import REVIEW_SECONDS, Volumes
from credspec.kubernetes.webhook.cluster_queries import ClusterQueries
from credspec.kubernetes.webhook.review import Endpoint, answer_review
from support.agent.fleet_simulation import LIFE, START
from support.webhook.reviews import gmsa, review

REPUBLISHED = 60.0, 90.0
"""How long the kubelet waits between two calls for a volume, in seconds."""

CONTROLLERS = 2
"""How many controllers of its domain a node follows."""

_OBJECT = gmsa("webapp01")
_CONTENT = json.dumps(_OBJECT).encode()
_BEFORE = 1.6 * REVIEW_SECONDS


@dataclass
class Requests:
    """How many requests were sent in each second.

    `api` are those of the drivers, `webhook` those that the webhook sends, both to the API server;
    `domain` are searches and AS exchanges, `connects` connections to controllers without either.
    `leases` are the leases that were made.
    """

    api: Counter[int] = field(default_factory=Counter)
    webhook: Counter[int] = field(default_factory=Counter)
    domain: Counter[int] = field(default_factory=Counter)
    connects: Counter[int] = field(default_factory=Counter)
    leases: Counter[int] = field(default_factory=Counter)

    def update(self, other: Requests) -> None:
        """Add those of other nodes."""
        for name, counter in vars(self).items():
            counter.update(getattr(other, name))


class _Clock:
    """Time that goes on when everybody waits."""

    def __init__(self, start: float) -> None:
        self.now = start
        self._number = itertools.count()
        self._awake = 0
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []

    async def sleep(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        when = self.now + max(0.0, seconds)
        heapq.heappush(self._waiting, (when, next(self._number), future))
        self._awake -= 1
        await future

    async def run(self, until: float, works: list[Coroutine[Any, Any, None]]) -> None:
        """Let some work go on until a moment."""
        tasks = [asyncio.create_task(self._going_on(work)) for work in works]
        self._awake = len(tasks)
        while True:
            while self._awake:
                await asyncio.sleep(0)
            if not self._waiting or self._waiting[0][0] >= until:
                break
            self.now, _, future = heapq.heappop(self._waiting)
            self._awake += 1
            future.set_result(None)
        for task in tasks:
            if task.done():
                task.result()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _going_on(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        finally:
            self._awake -= 1


class _Api:
    """The API server, which allows everything."""

    def __init__(self, count: Callable[[], None]) -> None:
        self._count = count

    async def get(self, path: str) -> bytes:
        del path
        self._count()
        return _CONTENT

    async def get_object(self, path: str) -> dict[str, Any]:
        del path
        self._count()
        return _OBJECT

    async def post(self, path: str, body: Any) -> Any:
        del path, body
        self._count()
        return {"status": {"allowed": True}}


class _Node:
    """A node's mounts, records, agent, and what it asks."""

    def __init__(self, requests: Requests, chance: random.Random) -> None:
        self.clock = _Clock(-_BEFORE)
        self.chance = chance
        self._requests = requests
        self._bound: set[Path] = set()
        self._mounted: set[str] = set()
        self._records: dict[str, VolumeRecord] = {}
        api = cast("ApiClient", _Api(self._counting(requests.api)))
        access = ObjectAccess(api, boottime=lambda: self.clock.now, chance=chance.random)
        self.volumes = Volumes(
            access,
            cast("AgentLeases", _Leases(self)),
            cast("VolumeMounts", _Mounts(self._mounted, self._bound)),
            cast("VolumeRecords", _Records(self._records)),
            boottime=lambda: self.clock.now,
        )
        asked = cast("ApiClient", _Api(self._counting(requests.webhook)))
        self.queries = ClusterQueries(asked, clock=lambda: self.clock.now)

    def _counting(self, counter: Counter[int]) -> Callable[[], None]:
        return lambda: self.count(counter)

    def count(self, counter: Counter[int], number: int = 1) -> None:
        counter[math.floor(self.clock.now)] += number

    def lease_made(self) -> None:
        self.count(self._requests.leases)

    async def admitted(self, pod: dict[str, Any]) -> None:
        """Send a pod that is made to the webhook, as the API server does."""
        for endpoint in Endpoint:
            await answer_review(review(pod), endpoint, self.queries)

    async def pod(self, number: int, accounts: int, ends: float | None, begins: float) -> None:
        """Be a pod of the node, from some moment on, and another in its place after the end."""
        await self.clock.sleep(begins - self.clock.now)
        await self._living(_request(number, 0, accounts), ends)
        if ends is None:
            return
        request = _request(number, 1, accounts)
        await self.admitted(_pod(request.pod))
        await self._living(request, None)

    async def _living(self, request: VolumeRequest, ends: float | None) -> None:
        while ends is None or self.clock.now < ends:
            await self.volumes.publish(request)
            pause = self.chance.uniform(*REPUBLISHED)
            left = pause if ends is None else ends - self.clock.now
            await self.clock.sleep(min(pause, left))
        await self.volumes.unpublish(request.volume_id, request.target)

    async def refreshes(self, accounts: int) -> None:
        """Keep the identities fresh, which the pods before a restart and after it share."""
        schedule: RefreshSchedule[int] = RefreshSchedule(self.chance.uniform)
        for account in range(accounts):
            # They were made at any time within the last life of a ticket.
            start = START - self.chance.random() * LIFE
            schedule.add(account, start=start, end=start + LIFE, now=start)
        while (when := schedule.next_time()) is not None:
            before = self.clock.now - (when - START).total_seconds()
            await self.clock.sleep(max(0.0, -before))
            now = max(when, START + timedelta(seconds=self.clock.now)) if before <= 0 else when
            for account in schedule.due(now):
                if before <= 0:
                    self.count(self._requests.domain, 2)  # the password, the ticket
                schedule.succeeded(account, start=now, end=now + LIFE, now=now)

    # What the agent's watches ask of `Identities`.

    async def facts(self, domain: str, *, again: bool) -> None:
        del domain, again
        self.count(self._requests.domain)

    def sessions_in_use(self) -> list[str]:
        return ["contoso.com"]

    async def follow_controllers(self, key: str) -> None:
        del key
        self.count(self._requests.connects, CONTROLLERS)


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


def simulate(
    nodes: int,
    pods: int,
    accounts: int,
    seconds: float,
    *,
    first: int = 0,
    is_restarted: bool = True,
    at_once: bool = False,
) -> Requests:
    """Let some nodes run for so many seconds, and count what is asked in them.

    Each node has pods of some service accounts. They were started at any time before: over longer
    than it takes until the API server is asked again, so that nothing is in step. With `at_once`
    all begin at the first moment instead. If `is_restarted`, each is replaced once, evenly.
    """
    requests = Requests()
    # There is no thread to wait for here, and nobody reads what would be logged.
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(asyncio, "to_thread", _at_once)
        patches.setattr("credspec.kubernetes.csi.volumes.emit", lambda *_, **__: None)
        for number in range(first, first + nodes):
            node = _Node(requests, random.Random(number))
            works = _works(node, pods, accounts, seconds, (is_restarted, at_once))
            asyncio.run(node.clock.run(seconds, works))
    return requests


def _works(
    node: _Node, pods: int, accounts: int, seconds: float, how: tuple[bool, bool]
) -> list[Coroutine[Any, Any, None]]:
    chance, sleep = node.chance, node.clock.sleep
    is_restarted, at_once = how

    async def later(work: Coroutine[Any, Any, None]) -> None:
        await sleep(chance.uniform(0, _BEFORE))
        await work

    found = []
    for number in range(pods):
        ends = chance.uniform(0, seconds) if is_restarted else None
        # A start at once takes the kubelet some seconds.
        begins = chance.uniform(0, 10) if at_once else chance.uniform(-_BEFORE, 0)
        found.append(node.pod(number, accounts, ends, begins))
    identities = cast("Identities", node)
    home = HomeDomainWatch(identities, "contoso.com", sleep=sleep, spread=chance.uniform)
    watch = watch_controllers(identities, sleep=sleep, spread=chance.uniform)
    return [*found, node.refreshes(accounts), later(home.run()), later(watch)]


def _request(pod: int, generation: int, accounts: int) -> VolumeRequest:
    uid = f"{pod}-{generation}"
    return VolumeRequest(
        volume_id=f"csi-{uid}",
        target=Path("/pods", uid),
        pod=Pod(namespace="shop", name=uid, uid=uid, service_account=f"web{pod % accounts}"),
        spec_name="webapp01",
        options=FileOptions(uid=0, gid=2000, mode=0o660),
    )


def _pod(pod: Pod) -> dict[str, Any]:
    return {
        "metadata": {"name": pod.name, "annotations": {"credspec.dev/gmsa": "webapp01"}},
        "spec": {
            "serviceAccountName": pod.service_account,
            "containers": [{"name": "main", "image": "web"}],
        },
    }


async def _at_once(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    return function(*arguments, **options)
