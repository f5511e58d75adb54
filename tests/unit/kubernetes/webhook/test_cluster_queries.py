"""What the webhook asks a simulated API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from aiohttp import web

from credspec.errors import CredspecError
from credspec.kubernetes.api.client import ApiClient
from credspec.kubernetes.webhook.cluster_queries import (
    QUERY_SECONDS,
    ClusterQueries,
    webhook_client,
)
from credspec.kubernetes.webhook.server import SECONDS
from support.kubernetes.simulated_api_server import SimulatedApiServer, credspec, status
from support.servers.certificate_authority import Authority


@pytest.fixture
async def server(tmp_path: Path, authority: Authority) -> AsyncIterator[SimulatedApiServer]:
    found = SimulatedApiServer(tmp_path, authority)
    found.objects["webapp01"] = credspec("WebApp01")
    found.bound.add(("shop", "web", "webapp01"))
    async with found.serving():
        yield found


@pytest.fixture
async def api(server: SimulatedApiServer) -> AsyncIterator[ApiClient]:
    found = webhook_client(server.server)
    yield found
    await found.close()


async def test_simulated_questions_at_the_same_time_are_asked_once(
    server: SimulatedApiServer, api: ApiClient
) -> None:
    async def wait(_: web.Request) -> None:
        await asyncio.sleep(0.2)

    server.before = wait
    cluster = ClusterQueries(api)
    found = await asyncio.gather(*(cluster.credential_spec("webapp01") for _ in range(20)))
    assert [each and each["credspec"] == credspec("WebApp01") for each in found] == [True] * 20
    assert len(server.asked) == 1
    server.before = None
    assert await cluster.credential_spec("other") is None
    decisions = [await cluster.may_use(name, "web", "webapp01") for name in ("shop", "x")]
    assert [each.is_allowed for each in decisions] == [True, False]


async def test_simulated_one_who_gives_up_does_not_stop_the_others(
    server: SimulatedApiServer, api: ApiClient
) -> None:
    async def wait(_: web.Request) -> None:
        await asyncio.sleep(0.3)

    server.before = wait
    cluster = ClusterQueries(api)
    first = asyncio.create_task(cluster.credential_spec("webapp01"))
    await asyncio.sleep(0.05)
    second = asyncio.create_task(cluster.credential_spec("webapp01"))
    await asyncio.sleep(0.05)
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    assert await second is not None
    assert len(server.asked) == 1


@pytest.mark.parametrize("name", ["../secrets/a", "", "A", "a/b", "a?b"])
async def test_simulated_a_name_never_becomes_another_path(
    server: SimulatedApiServer, api: ApiClient, name: str
) -> None:
    cluster = ClusterQueries(api)
    assert await cluster.credential_spec(name) is None
    assert not (await cluster.may_use(name, "web", "a")).is_allowed
    assert not (await cluster.may_use("shop", name, "a")).is_allowed
    assert not server.asked


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (status(403, "forbidden"), "kubernetes-api-refused"),
        (web.Response(status=302, headers={"Location": "/b"}), "kubernetes-api-refused"),
        (web.Response(status=500, text="oops"), "kubernetes-api-unreachable"),
        (web.Response(text="[]"), "kubernetes-api-answer"),
        (web.Response(text="oops"), "kubernetes-api-answer"),
        (web.Response(body=b" " * (5 * 1024 * 1024)), "kubernetes-api-answer"),
    ],
)
async def test_simulated_another_answer_is_an_error(
    server: SimulatedApiServer, api: ApiClient, answer: web.Response, code: str
) -> None:
    async def reply(_: web.Request) -> web.Response:
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)

    server.before = reply
    cluster = ClusterQueries(api)
    for question in (cluster.credential_spec("webapp01"), cluster.may_use("shop", "web", "a")):
        with pytest.raises(CredspecError) as caught:
            await question
        assert caught.value.code == code


def test_it_gives_up_before_the_review_does() -> None:
    """Else a pod's author would read of a timeout, not of what is away."""
    assert QUERY_SECONDS < SECONDS < 10
