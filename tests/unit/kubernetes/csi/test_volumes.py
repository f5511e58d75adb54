"""Volumes with real mounts, through the agent's real API and leases, over a simulated domain.

Also simulated is the API server; `tests/e2e/kubernetes` has the real one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from credspec.agent.doors.http.api import make_api
from credspec.agent.doors.http.server import serving_http
from credspec.agent.leases.mounts import mounted_below
from credspec.config.policy import Policy, PolicyInForce
from credspec.contract import c_library
from credspec.errors import (
    AgentUnreachableError,
    CredspecError,
    InvalidSpecError,
    NotFoundError,
    NotPermittedError,
    UnreachableError,
)
from credspec.kubernetes.api.client import ApiClient
from credspec.kubernetes.csi import object_access
from credspec.kubernetes.csi.agent_leases import AgentLeases
from credspec.kubernetes.csi.object_access import ObjectAccess
from credspec.kubernetes.csi.volume_mounts import VolumeMounts
from credspec.kubernetes.csi.volume_records import VolumeRecords
from credspec.kubernetes.csi.volume_request import VolumeRequest, volume_request
from credspec.kubernetes.csi.volumes import Volumes
from credspec.sockets.listener import listen
from support.agent.scripted_leases import ScriptedLeases, directory_in_memory
from support.kubernetes.publish_requests import publish_request, target_in
from support.kubernetes.simulated_api_server import SimulatedApiServer, credspec, status
from support.servers.certificate_authority import Authority

pytestmark = pytest.mark.root

FROM_OBJECTS = Policy(spec_sources=("kubernetes",))


class Node:
    """A node: its agent, its driver, and the directories of its kubelet."""

    def __init__(self, directory: Path, server: SimulatedApiServer) -> None:
        self.directory = directory
        self.server = server
        self.pods = directory / "pods"
        self.target = target_in(self.pods)
        self.target.parent.mkdir(parents=True)
        (directory / "volumes").mkdir(mode=0o700)
        self.now = 1000.0
        self.agent: ScriptedLeases | None = None
        self.policy = PolicyInForce(FROM_OBJECTS)
        self._stack = AsyncExitStack()
        self.volumes = self.driver()

    def driver(self) -> Volumes:
        """Return a driver as after a start."""
        records = VolumeRecords(self.directory / "csi")
        records.open()
        self.api = ApiClient(self.server.server, seconds=60)
        return Volumes(
            ObjectAccess(self.api, boottime=lambda: self.now, chance=lambda: 0.5),
            AgentLeases(self.directory / "agent.sock", wait_seconds=0.5),
            VolumeMounts(self.directory, self.directory / "agent.sock"),
            records,
            boottime=lambda: self.now,
        )

    async def restart_driver(self) -> None:
        await self.api.close()
        self.volumes = self.driver()

    async def start_agent(self) -> None:
        agent = self.agent = ScriptedLeases(self.directory)
        agent.leases.policy.policy = FROM_OBJECTS
        await agent.leases.adopt()
        path = self.directory / "agent.sock"
        listener = self._stack.enter_context(listen(path, others=False))
        api = make_api(agent.leases, agent.identities)
        await self._stack.enter_async_context(serving_http(api, listener, PolicyInForce()))

    async def stop_agent(self) -> None:
        assert self.agent is not None
        await self._stack.aclose()
        await self.agent.close()
        self.agent = None

    async def close(self) -> None:
        if self.agent is not None:
            await self.stop_agent()
        await self.api.close()

    def request(self, context: dict[str, str | None] | None = None, **more: Any) -> VolumeRequest:
        return volume_request(publish_request(self.pods, context, **more), self.pods)

    def leases(self) -> list[str]:
        assert self.agent is not None
        return [record.container for record in self.agent.leases.all()]

    def mounts(self) -> frozenset[str]:
        return mounted_below(self.directory)

    def ticket(self) -> bytes | None:
        path = self.target / "krb5cc"
        return path.read_bytes() if path.exists() else None

    @property
    def is_clean(self) -> bool:
        return (
            not self.mounts()
            and not self.target.exists()
            and not any((self.directory / "volumes").iterdir())
            and not any((self.directory / "csi").iterdir())
            and not self.leases()
        )


@pytest.fixture
async def server(tmp_path: Path, authority: Authority) -> AsyncIterator[SimulatedApiServer]:
    found = SimulatedApiServer(tmp_path, authority)
    found.objects["webapp01"] = credspec("WebApp01")
    found.bound.add(("shop", "web", "webapp01"))
    async with found.serving():
        yield found


@pytest.fixture
def directory() -> Iterator[Path]:
    with directory_in_memory() as found:
        yield found
        for name in sorted(mounted_below(found), reverse=True):
            with suppress(OSError):
                c_library.unmount(os.fsencode(found / name), 2)


@pytest.fixture
async def node(directory: Path, server: SimulatedApiServer) -> AsyncIterator[Node]:
    found = Node(directory, server)
    await found.start_agent()
    yield found
    await found.close()


async def test_a_pod_gets_its_tickets_and_nothing_is_left(node: Node) -> None:
    request = node.request(group="2000")
    await node.volumes.publish(request)
    assert node.ticket()
    held = (node.target / "krb5cc").stat()
    assert (held.st_uid, held.st_gid, held.st_mode & 0o7777) == (0, 2000, 0o660)
    over = node.target.stat()
    assert (over.st_gid, over.st_mode & 0o7777) == (2000, 0o750)
    assert (node.target / "krb5.conf").exists()
    assert node.leases() == ["shop/web-0"]
    await node.volumes.unpublish(request.volume_id, request.target)
    assert node.is_clean
    assert node.agent is not None
    assert [line["decision"] for line in node.agent.audited()] == ["granted", "released"]


@pytest.mark.parametrize("readonly", [False, True])
async def test_every_call_can_be_repeated(node: Node, *, readonly: bool) -> None:
    request = node.request(readonly=readonly)
    for _ in range(3):
        await node.volumes.publish(request)
    assert len(node.mounts()) == 2
    assert len(node.server.asked) == 2, "one review, one object"
    for _ in range(3):
        await node.volumes.unpublish(request.volume_id, request.target)
    assert node.is_clean


async def test_calls_at_the_same_time_take_turns(node: Node) -> None:
    request = node.request()
    await asyncio.gather(*(node.volumes.publish(request) for _ in range(5)))
    assert node.agent is not None
    assert [line["decision"] for line in node.agent.audited()] == ["granted"]
    await asyncio.gather(
        *(node.volumes.unpublish(request.volume_id, request.target) for _ in range(5))
    )
    assert node.is_clean


async def test_two_volumes_of_a_pod(node: Node) -> None:
    node.server.objects["webapp02"] = credspec("WebApp02")
    node.server.bound.add(("shop", "web", "webapp02"))
    other = target_in(node.pods, volume="other")
    other.parent.mkdir()
    await node.volumes.publish(node.request())
    second = node.request(
        {"credentialSpecName": "webapp02"}, volume_id="csi-4567", target=str(other)
    )
    await node.volumes.publish(second)
    await node.volumes.unpublish("csi-0123", node.target)
    assert node.leases() == ["shop/web-0"]
    assert (other / "krb5cc").exists()
    await node.volumes.unpublish("csi-4567", other)
    assert node.is_clean


async def test_a_volume_that_the_pod_only_reads(node: Node) -> None:
    await node.volumes.publish(node.request(readonly=True))
    assert node.ticket()
    with pytest.raises(OSError, match="Read-only"):
        (node.target / "x").touch()
    # The agent writes to it all the same.
    assert node.agent is not None
    first = node.ticket()
    (identity,) = node.agent.identities.held()
    await node.agent.identities.refresh(identity.name)
    await asyncio.gather(*node.agent.leases._background.tasks)
    assert node.ticket() not in {None, first}
    await node.volumes.unpublish("csi-0123", node.target)


async def test_a_volume_that_is_to_be_only_read_from_now_on(node: Node) -> None:
    await node.volumes.publish(node.request())
    await node.volumes.publish(node.request(readonly=True))
    with pytest.raises(OSError, match="Read-only"):
        (node.target / "x").touch()
    assert node.ticket()
    assert len(node.mounts()) == 2
    await node.volumes.unpublish("csi-0123", node.target)
    assert node.is_clean


@pytest.mark.parametrize("readonly", [False, True])
async def test_nothing_in_a_volume_is_a_device_or_runs(node: Node, *, readonly: bool) -> None:
    await node.volumes.publish(node.request(readonly=readonly))
    wanted = os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC
    found = os.statvfs(node.target).f_flag
    assert found & wanted == wanted
    assert bool(found & os.ST_RDONLY) is readonly
    await node.volumes.unpublish("csi-0123", node.target)


async def test_who_may_not_use_the_object_gets_nothing(node: Node) -> None:
    node.server.bound.clear()
    with pytest.raises(NotPermittedError) as caught:
        await node.volumes.publish(node.request())
    assert caught.value.code == "csi-use-not-permitted"
    assert "service account 'web' is not authorized to `use` GMSA cred spec 'webapp01'" in str(
        caught.value
    )
    assert node.is_clean


async def test_an_object_that_is_not_there(node: Node) -> None:
    """Who may not use it is not told that it is missing."""
    del node.server.objects["webapp01"]
    with pytest.raises(NotFoundError, match="cred spec webapp01 does not exist"):
        await node.volumes.publish(node.request())
    node.server.bound.clear()
    with pytest.raises(NotPermittedError):
        await node.volumes.publish(node.request())
    assert node.is_clean


@pytest.mark.parametrize(
    "content", [None, {}, [], "x", {"CmsPlugins": ["x"] * 50_000}, {"DomainJoinConfig": 5}]
)
async def test_an_object_of_the_wrong_shape(node: Node, content: object) -> None:
    node.server.objects["webapp01"] = content
    with pytest.raises(InvalidSpecError):
        await node.volumes.publish(node.request())
    assert node.is_clean


async def test_the_policy_of_the_host_holds(node: Node) -> None:
    assert node.agent is not None
    for policy, code in (
        (Policy(), "policy-spec-source"),
        (Policy(spec_sources=("raw",)), "policy-spec-source"),
        (replace(FROM_OBJECTS, accounts=("Other*",)), "policy-account"),
    ):
        node.agent.leases.policy.policy = policy
        with pytest.raises(NotPermittedError, match=code):
            await node.volumes.publish(node.request())
        assert node.is_clean


async def test_an_api_server_that_is_away(node: Node) -> None:
    """New pods wait, with a reason; those that live go on."""

    async def away(_: web.Request) -> web.Response:
        return status(503, "etcd has no leader", **{"Retry-After": "0"})

    await node.volumes.publish(node.request())
    first = node.ticket()
    node.server.before = away
    node.now += 10_000
    await node.volumes.publish(node.request())
    assert node.ticket() == first
    other = node.request(volume_id="csi-4567")
    with pytest.raises(UnreachableError, match="etcd has no leader"):
        await node.volumes.publish(replace(other, target=node.target.with_name("new")))
    assert node.ticket() == first
    assert len(node.mounts()) == 2


@pytest.mark.parametrize(
    ("method", "code", "expected"),
    [
        ("POST", 404, CredspecError),  # an API server without such reviews
        ("POST", 403, CredspecError),
        ("GET", 403, CredspecError),
        ("POST", 503, UnreachableError),
        ("GET", 503, UnreachableError),
    ],
)
async def test_only_an_answer_about_the_pod_takes_its_tickets(
    node: Node, method: str, code: int, expected: type[CredspecError]
) -> None:
    """A driver that may not ask, or half of whose questions fails, has no answer."""

    async def fail(request: web.Request) -> web.Response | None:
        headers = {"Retry-After": "0"}
        return status(code, "cannot be asked", **headers) if request.method == method else None

    await node.volumes.publish(node.request())
    first = node.ticket()
    node.server.before = fail
    node.now += 10_000
    with suppress(CredspecError):
        await node.volumes.publish(node.request())
    assert node.ticket() == first
    other = replace(node.request(volume_id="csi-4567"), target=node.target.with_name("new"))
    with pytest.raises(expected, match="cannot be asked") as caught:
        await node.volumes.publish(other)
    assert not isinstance(caught.value, NotFoundError | NotPermittedError)
    assert not other.target.exists()


async def test_a_volume_that_is_asked_for_otherwise_is_a_new_question(node: Node) -> None:
    """What an earlier request was granted says nothing about another one of the same id."""
    for context in (
        {"credentialSpecName": "webapp02"},
        {"csi.storage.k8s.io/serviceAccount.name": "other"},
    ):
        await node.volumes.publish(node.request())
        assert node.ticket()
        with pytest.raises(NotPermittedError):
            await node.volumes.publish(node.request(context))
        assert node.ticket() is None
        assert node.leases() == []


async def test_the_end_of_another_target_leaves_the_volume(node: Node) -> None:
    """As of a target of an earlier pod, of which the kubelet cleans up."""
    await node.volumes.publish(node.request())
    other = node.target.with_name("other")
    await node.volumes.unpublish("csi-0123", other)
    assert node.ticket()
    assert node.leases() == ["shop/web-0"]
    c_library.unmount(os.fsencode(node.target), 2)
    await node.volumes.unpublish("csi-0123", other)
    assert node.leases() == [], "nothing shows it any more"
    node.target.rmdir()
    assert node.is_clean


async def test_a_sweep_takes_all_that_it_can_and_no_more(node: Node) -> None:
    requests = []
    for number in range(3):
        pod = f"00000000-0000-4000-8000-00000000000{number}"
        target = target_in(node.pods, pod)
        target.parent.mkdir(parents=True)
        context: dict[str, str | None] = {"csi.storage.k8s.io/pod.uid": pod}
        request = node.request(context, volume_id=f"csi-{number}", target=str(target))
        await node.volumes.publish(request)
        requests.append(request)
    assert await node.volumes.sweep(node.pods) == 0
    elsewhere = node.directory / "elsewhere"
    assert await node.volumes.sweep(elsewhere) == 0, "there are no pods to be seen"
    # In the order of the leases one lives, one cannot be taken back, one can.
    first, busy, _ = sorted(requests, key=lambda each: each.lease_id)
    (elsewhere / first.pod.uid).mkdir(parents=True)
    unbind = node.volumes.mounts.unbind

    def fail(target: Path) -> None:
        if target == busy.target:
            raise CredspecError.of("csi-unmount", "busy")
        unbind(target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node.volumes.mounts, "unbind", fail)
        assert await node.volumes.sweep(elsewhere) == 1
    assert len(node.leases()) == 2
    assert await node.volumes.sweep(elsewhere) == 1
    assert len(node.leases()) == 1
    assert (first.target / "krb5cc").exists()


async def test_answers_are_not_kept_without_end(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_access, "_MOST_KEPT", 3)
    access, pod = node.volumes.access, node.request().pod
    for number in range(10):
        await access.ask(pod, f"spec{number}")
        kept = [access.last(pod, f"spec{each}") for each in range(number + 1)]
        assert kept[-1] is not None
        assert sum(each is not None for each in kept) <= 3


async def test_an_agent_that_is_away(node: Node) -> None:
    """It adopts what lives; new pods wait, and what ends meanwhile is gone all the same."""
    await node.volumes.publish(node.request())
    first = node.ticket()
    await node.stop_agent()
    await node.volumes.publish(node.request())
    assert node.ticket() == first
    other = replace(node.request(volume_id="csi-4567"), target=node.target.with_name("new"))
    with pytest.raises(AgentUnreachableError):
        await node.volumes.publish(other)
    assert not other.target.exists()
    await node.start_agent()
    assert node.leases() == ["shop/web-0"]
    assert node.ticket() == first
    await node.stop_agent()
    await node.volumes.unpublish("csi-0123", node.target)
    await node.start_agent()
    assert node.is_clean


async def test_an_agent_that_comes_back_is_waited_for(node: Node) -> None:
    await node.stop_agent()
    node.volumes.agent._wait_seconds = 60
    publishing = asyncio.create_task(node.volumes.publish(node.request()))
    await asyncio.sleep(0.3)
    await node.start_agent()
    await publishing
    assert node.ticket()


async def test_a_lease_that_the_agent_has_lost_is_made_again(node: Node) -> None:
    await node.volumes.publish(node.request())
    assert node.agent is not None
    await node.agent.leases.release(node.request().lease_id)
    assert node.ticket() is None
    await node.volumes.publish(node.request())
    assert node.ticket()


async def test_a_revoked_use_takes_the_tickets_at_the_next_review(node: Node) -> None:
    await node.volumes.publish(node.request())
    node.server.bound.clear()
    await node.volumes.publish(node.request())
    assert node.ticket(), "not asked yet"
    node.now += 840
    with pytest.raises(NotPermittedError, match="csi-use-not-permitted"):
        await node.volumes.publish(node.request())
    assert node.ticket() is None
    assert node.leases() == []
    assert len(node.mounts()) == 2, "the pod runs, and its mount stays"
    # Asked now and then at the kubelet's calls, and given again when it is allowed.
    questions = len(node.server.asked)
    for _ in range(3):
        with pytest.raises(NotPermittedError):
            await node.volumes.publish(node.request())
    assert len(node.server.asked) == questions
    node.server.bound.add(("shop", "web", "webapp01"))
    node.now += 150
    await node.volumes.publish(node.request())
    assert node.ticket()


async def test_pods_of_one_service_account_share_the_reviews_of_a_node(node: Node) -> None:
    """Each is asked for before it starts; afterwards one question serves all that live."""
    node.server.bound.add(("shop", "other", "webapp01"))
    requests = []
    for number in range(6):
        target = target_in(node.pods, volume=f"v{number}")
        target.parent.mkdir(exist_ok=True)
        account = "other" if number == 5 else "web"
        context: dict[str, str | None] = {"csi.storage.k8s.io/serviceAccount.name": account}
        requests.append(node.request(context, volume_id=f"csi-{number}", target=str(target)))
    for request in requests:
        await node.volumes.publish(request)
    assert len(node.server.reviews) == 6
    for _ in range(4):
        node.now += 180
        for request in requests:
            await node.volumes.publish(request)
    assert len(node.server.reviews) == 6 + 2
    node.server.bound.remove(("shop", "web", "webapp01"))
    node.now += 840
    for request in requests[:5]:
        with pytest.raises(NotPermittedError):
            await node.volumes.publish(request)
        assert not (request.target / "krb5cc").exists()
    await node.volumes.publish(requests[5])
    assert (requests[5].target / "krb5cc").exists()
    assert len(node.server.reviews) == 6 + 4
    for request in requests:
        await node.volumes.unpublish(request.volume_id, request.target)
    assert node.leases() == []


async def test_pods_that_start_at_the_same_time_share_the_question(node: Node) -> None:
    requests = []
    for number in range(5):
        target = target_in(node.pods, volume=f"v{number}")
        target.parent.mkdir(exist_ok=True)
        requests.append(node.request(volume_id=f"csi-{number}", target=str(target)))
    given_up, *others = [asyncio.create_task(node.volumes.publish(each)) for each in requests]
    while node.server.asked == []:
        await asyncio.sleep(0)
    given_up.cancel()  # the one that asked
    await asyncio.gather(*others)
    assert len(node.server.asked) == 2, "one review, one object"
    assert [(each.target / "krb5cc").exists() for each in requests] == [False, *[True] * 4]
    for request in requests:
        await node.volumes.unpublish(request.volume_id, request.target)
    assert node.is_clean


async def test_answers_are_not_all_good_for_the_same_time(node: Node) -> None:
    await node.volumes.publish(node.request())
    for chance, seconds in ((0.0, 180), (1.0, 960)):
        node.volumes.access._chance = lambda chance=chance: chance
        node.now += 961
        await node.volumes.publish(node.request())
        questions = len(node.server.reviews)
        node.now += seconds - 1
        await node.volumes.publish(node.request())
        assert len(node.server.reviews) == questions
        node.now += 2
        await node.volumes.publish(node.request())
        assert len(node.server.reviews) == questions + 1


async def test_a_new_pod_is_asked_for_whatever_others_were_answered(node: Node) -> None:
    await node.volumes.publish(node.request())
    node.server.bound.clear()
    node.now += 1
    target = target_in(node.pods, volume="new")
    target.parent.mkdir()
    with pytest.raises(NotPermittedError):
        await node.volumes.publish(node.request(volume_id="csi-new", target=str(target)))
    # And what it was answered counts for those that live.
    with pytest.raises(NotPermittedError):
        await node.volumes.publish(node.request())
    assert node.ticket() is None


async def test_a_deleted_object_takes_the_tickets(node: Node) -> None:
    await node.volumes.publish(node.request())
    del node.server.objects["webapp01"]
    node.now += 840
    with pytest.raises(NotFoundError):
        await node.volumes.publish(node.request())
    assert node.ticket() is None


async def test_a_changed_object_counts_at_the_next_review(node: Node) -> None:
    await node.volumes.publish(node.request())
    node.server.objects["webapp01"] = credspec("WebApp02")
    await node.volumes.publish(node.request())
    assert node.agent is not None
    (record,) = node.agent.leases.all()
    assert record.accounts == ("WebApp01",)
    node.now += 840
    await node.volumes.publish(node.request())
    (record,) = node.agent.leases.all()
    assert record.accounts == ("WebApp02",)
    assert record.spec_source == "kubernetes"
    assert node.ticket()


async def test_a_changed_object_that_is_refused_costs_a_living_pod_nothing(node: Node) -> None:
    """It is tried again at each call of the kubelet."""
    await node.volumes.publish(node.request())
    first = node.ticket()
    assert node.agent is not None
    node.agent.leases.policy.policy = replace(FROM_OBJECTS, accounts=("WebApp01",))
    node.server.objects["webapp01"] = credspec("WebApp02")
    node.now += 840
    for _ in range(2):
        with pytest.raises(NotPermittedError, match="policy-account"):
            await node.volumes.publish(node.request())
        assert node.ticket() == first
        assert [record.accounts for record in node.agent.leases.all()] == [("WebApp01",)]
    node.agent.leases.policy.policy = FROM_OBJECTS
    await node.volumes.publish(node.request())
    assert node.ticket() != first
    assert [record.accounts for record in node.agent.leases.all()] == [("WebApp02",)]


async def test_an_object_that_became_invalid_changes_nothing_for_pods_that_live(
    node: Node,
) -> None:
    await node.volumes.publish(node.request())
    first = node.ticket()
    node.server.objects["webapp01"] = {"x": 1}
    node.now += 840
    with pytest.raises(InvalidSpecError):
        await node.volumes.publish(node.request())
    assert node.ticket() == first


async def test_a_driver_that_was_restarted_asks_nothing_of_volumes_in_place(node: Node) -> None:
    await node.volumes.publish(node.request())
    first = node.ticket()
    await node.restart_driver()
    await node.volumes.publish(node.request())
    assert node.ticket() == first
    assert len(node.server.asked) == 2
    await node.restart_driver()
    await node.volumes.unpublish("csi-0123", node.target)
    assert node.is_clean


STEPS = ("make", "agent.make", "bind", "unbind", "agent.release", "remove")


class KilledError(BaseException):
    """The driver was killed at this point."""


@asynccontextmanager
async def killed_at(node: Node, step: str, *, after: bool) -> AsyncIterator[None]:
    """Let the driver go no further than one of its steps, as SIGKILL does: nothing is undone."""
    volumes = node.volumes
    owner = volumes.agent if step.startswith("agent.") else volumes.mounts
    name = step.removeprefix("agent.")
    original = getattr(owner, name)
    is_killed = False

    def dead(*_: object, **__: object) -> None:
        raise KilledError

    def kill() -> None:
        nonlocal is_killed
        is_killed = True
        for each, names in (
            (volumes.mounts, ("make", "bind", "unbind", "remove")),
            (volumes.agent, ("make", "release")),
            (volumes.records, ("write", "remove")),
        ):
            for one in names:
                monkeypatch.setattr(each, one, dead)

    def sync(*args: object, **kwargs: object) -> object:
        if after:
            original(*args, **kwargs)
        kill()
        raise KilledError

    async def of_agent(*args: object, **kwargs: object) -> object:
        if after:
            await original(*args, **kwargs)
        kill()
        raise KilledError

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(owner, name, of_agent if step.startswith("agent.") else sync)
        with suppress(KilledError):
            yield
    assert is_killed, f"{step} was not reached"


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", ["make", "agent.make", "bind"])
@pytest.mark.parametrize("ending", ["published", "unpublished", "swept"])
async def test_a_driver_killed_while_it_publishes(
    node: Node, step: str, *, after: bool, ending: str
) -> None:
    """The kubelet asks again, or for the end, or is gone itself: nothing is lost or left."""
    request = node.request()
    async with killed_at(node, step, after=after):
        await node.volumes.publish(request)
    await node.restart_driver()
    if ending == "published":
        await node.volumes.publish(request)
        assert node.ticket()
        assert node.leases() == ["shop/web-0"]
        assert len(node.mounts()) == 2
    if ending != "swept":
        await node.volumes.unpublish(request.volume_id, request.target)
    else:
        assert await node.volumes.sweep(node.pods) == 0, "the pod's directory is there"
        with suppress(OSError):
            c_library.unmount(os.fsencode(node.target), 2)
        for path in [node.target, *node.target.parents][:5]:
            with suppress(FileNotFoundError):
                path.rmdir()
        assert await node.volumes.sweep(node.pods) == 1
    assert node.agent is not None
    await node.agent.leases.sweep()
    assert node.is_clean


async def test_what_a_killed_driver_gave_is_taken_if_the_use_is_revoked_meanwhile(
    node: Node,
) -> None:
    async with killed_at(node, "bind", after=True):
        await node.volumes.publish(node.request())
    assert node.ticket()
    node.server.bound.clear()
    await node.restart_driver()
    with pytest.raises(NotPermittedError):
        await node.volumes.publish(node.request())
    assert node.ticket() is None
    assert node.leases() == []
    await node.volumes.unpublish("csi-0123", node.target)
    assert node.is_clean


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", ["unbind", "agent.release", "remove"])
async def test_a_driver_killed_while_it_unpublishes(node: Node, step: str, *, after: bool) -> None:
    request = node.request()
    await node.volumes.publish(request)
    async with killed_at(node, step, after=after):
        await node.volumes.unpublish(request.volume_id, request.target)
    await node.restart_driver()
    await node.volumes.unpublish(request.volume_id, request.target)
    assert node.agent is not None
    await node.agent.leases.sweep()
    assert node.is_clean


async def test_a_caller_that_gives_up_leaves_nothing(node: Node) -> None:
    """As the kubelet does after two minutes."""
    assert node.agent is not None
    node.agent.session.seconds = 0.5
    publishing = asyncio.create_task(node.volumes.publish(node.request()))
    while not node.mounts():
        await asyncio.sleep(0.01)
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing
    while node.leases():
        await asyncio.sleep(0.05)
    assert node.is_clean


async def test_a_reboot_leaves_an_empty_target(node: Node) -> None:
    """What was in memory is gone, the kubelet's directories are on a disk."""
    node.target.mkdir()
    await node.volumes.unpublish("csi-0123", node.target)
    assert node.is_clean
    node.target.mkdir()
    await node.volumes.publish(node.request())
    assert node.ticket()
    await node.volumes.unpublish("csi-0123", node.target)
    assert node.is_clean


async def test_what_is_in_a_target_on_a_disk_is_not_removed(node: Node) -> None:
    node.target.mkdir()
    (node.target / "somebodys").write_text("x")
    with pytest.raises(CredspecError, match="csi-unmount"):
        await node.volumes.unpublish("csi-0123", node.target)
    assert (node.target / "somebodys").exists()


async def test_a_link_as_target_is_not_followed(node: Node, tmp_path: Path) -> None:
    node.target.symlink_to(tmp_path)
    with pytest.raises(CredspecError, match="csi-mount"):
        await node.volumes.publish(node.request())
    assert not node.mounts()
    assert node.leases() == []


async def test_something_else_that_is_mounted_at_the_target_goes(node: Node) -> None:
    """As of a volume whose tmpfs was unmounted by hand, or of an earlier installation."""
    await node.volumes.publish(node.request())
    node.volumes.mounts.remove(node.request().lease_id)
    await node.volumes.publish(node.request())
    assert node.ticket()
    assert len(node.mounts()) == 2
    await node.volumes.unpublish("csi-0123", node.target)
    assert node.is_clean


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"target": 5}', b"\xff", b"[" * 99999])
async def test_a_damaged_record_costs_a_question(node: Node, content: bytes) -> None:
    request = node.request()
    await node.volumes.publish(request)
    path = node.directory / "csi" / f"{request.lease_id}.json"
    path.write_bytes(content)
    await node.volumes.publish(request)
    assert node.ticket()
    path.write_bytes(content)
    await node.volumes.unpublish(request.volume_id, request.target)
    assert node.is_clean
