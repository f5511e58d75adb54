"""The webhook put together, before a simulated API server over TLS."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from credspec.errors import CredspecError, NotPermittedError, UnreachableError
from credspec.kubernetes.webhook import service
from credspec.kubernetes.webhook.api_server import ApiServer, AskedCluster
from credspec.kubernetes.webhook.certificates import renewed
from credspec.kubernetes.webhook.serving_certificate import load_into, server_context
from credspec.service.events import Event
from support.webhook.reviews import gmsa, patch_in, review

NAME = "credspec-webhook"
POD = {
    "metadata": {"annotations": {"credspec.dev/gmsa": "webapp01"}},
    "spec": {"serviceAccountName": "web", "containers": [{"name": "app"}]},
}


class SimulatedApiServer:
    """An API server with a Secret, webhook configurations, objects and reviews."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secret: dict[str, Any] = {"metadata": {"name": NAME, "resourceVersion": "1"}}
        self.bundles: dict[str, str] = {}
        self.requests: list[tuple[str, str, str]] = []
        self.answer: web.Response | None = None
        self.delay = 0.0
        self.url = ""

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._handle)
        return application

    async def _handle(self, request: web.Request) -> web.Response:
        token = request.headers["Authorization"]
        self.requests.append((request.method, request.path, token))
        await asyncio.sleep(self.delay)
        if self.answer is not None:
            return self.answer
        body = await request.json() if request.can_read_body else None
        *_, kind, name = request.path.split("/")
        if kind == "secrets":
            if request.method == "PUT":
                self.secret = {**body, "metadata": {"name": NAME, "resourceVersion": "2"}}
            return web.json_response(self.secret)
        if kind.endswith("webhookconfigurations"):
            if request.method == "PATCH":
                assert request.content_type == "application/json-patch+json"
                self.bundles[kind] = body[-1]["value"]
            config = {"caBundle": self.bundles[kind]} if kind in self.bundles else {}
            metadata = {"resourceVersion": "5"}
            return web.json_response({"metadata": metadata, "webhooks": [{"clientConfig": config}]})
        if name == "localsubjectaccessreviews":
            spec = body["spec"]
            is_allowed = spec["user"] == "system:serviceaccount:shop:web"
            assert spec["resourceAttributes"]["namespace"] == body["metadata"]["namespace"]
            return web.json_response({"status": {"allowed": is_allowed}}, status=201)
        if name == "webapp01":
            return web.json_response(gmsa(name))
        return web.json_response({"kind": "Status", "message": f"no {name}"}, status=404)


@pytest.fixture
async def api_server(tmp_path: Path) -> AsyncIterator[SimulatedApiServer]:
    made = renewed(None, ["localhost"], datetime.now(UTC))
    (tmp_path / "ca.crt").write_bytes(made.bundle)
    (tmp_path / "token").write_text("first\n")
    context = server_context()
    load_into(context, made.certificate, made.key)
    simulated = SimulatedApiServer(tmp_path)
    runner = web.AppRunner(simulated.application(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    simulated.url = f"https://localhost:{runner.addresses[0][1]}"
    yield simulated
    await runner.cleanup()


async def test_simulated_a_webhook_from_its_first_start_to_its_end(
    api_server: SimulatedApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[Event, dict[str, Any]]] = []
    monkeypatch.setattr(service, "emit", lambda event, **fields: events.append((event, fields)))
    settings = service.WebhookSettings(
        listen=("127.0.0.1", 0),
        health=("127.0.0.1", 0),
        namespace="credspec",
        drain_seconds=0.0,
    )
    running = asyncio.create_task(
        service.run(settings, ApiServer(api_server.url, api_server.folder))
    )
    async with asyncio.timeout(60):
        while Event.WEBHOOK_READY not in dict(events):
            await asyncio.sleep(0.01)
    port = int(dict(events)[Event.WEBHOOK_READY]["address"].rpartition(":")[2])
    (bundle,) = {*api_server.bundles.values()}
    assert len(api_server.bundles) == 2
    context = ssl.create_default_context(cadata=base64.b64decode(bundle).decode())
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def send(path: str, namespace: str) -> Any:
            async with session.post(
                f"https://127.0.0.1:{port}{path}",
                data=review(POD, namespace=namespace),
                headers={"Content-Type": "application/json"},
                # As the API server calls it.
                server_hostname=f"{NAME}.credspec.svc",
            ) as response:
                return await response.json()

        assert patch_in(await send("/mutate", "shop"))
        assert not patch_in(await send("/validate", "shop"))
        refused = await send("/validate", "other")
        assert refused["response"]["status"]["code"] == 403
    assert (Event.POD_REFUSED, "kubernetes-spec-not-authorized") in [
        (event, fields.get("code")) for event, fields in events
    ]
    signal.raise_signal(signal.SIGTERM)
    async with asyncio.timeout(60):
        await running
    keys = {"tls.crt", "tls.key", "ca.crt", "ca.key"}
    assert api_server.secret["data"].keys() == keys


async def test_simulated_questions_at_the_same_time_are_asked_once(
    api_server: SimulatedApiServer,
) -> None:
    api_server.delay = 0.2
    async with ApiServer(api_server.url, api_server.folder) as api:
        cluster = AskedCluster(api)
        found = await asyncio.gather(*(cluster.credential_spec("webapp01") for _ in range(20)))
        assert [each == gmsa("webapp01") for each in found] == [True] * 20
        assert len(api_server.requests) == 1
        api_server.delay = 0.0
        assert await cluster.credential_spec("other") is None
        decisions = [await cluster.may_use(name, "web", "webapp01") for name in ("shop", "x")]
        assert [each.is_allowed for each in decisions] == [True, False]


async def test_simulated_one_who_gives_up_does_not_stop_the_others(
    api_server: SimulatedApiServer,
) -> None:
    api_server.delay = 0.3
    async with ApiServer(api_server.url, api_server.folder) as api:
        cluster = AskedCluster(api)
        first = asyncio.create_task(cluster.credential_spec("webapp01"))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(cluster.credential_spec("webapp01"))
        await asyncio.sleep(0.05)
        first.cancel()
        with suppress(asyncio.CancelledError):
            await first
        assert await second == gmsa("webapp01")


@pytest.mark.parametrize("name", ["../secrets/a", "", "A", "a/b", "a?b"])
async def test_simulated_a_name_never_becomes_another_path(
    api_server: SimulatedApiServer, name: str
) -> None:
    async with ApiServer(api_server.url, api_server.folder) as api:
        cluster = AskedCluster(api)
        assert await cluster.credential_spec(name) is None
        assert not (await cluster.may_use(name, "web", "a")).is_allowed
        assert not (await cluster.may_use("shop", name, "a")).is_allowed
    assert not api_server.requests


async def test_simulated_the_token_is_read_again(api_server: SimulatedApiServer) -> None:
    async with ApiServer(api_server.url, api_server.folder) as api:
        await api.request("GET", "/a")
        (api_server.folder / "token").write_text("second")
        await api.request("GET", "/a")
        assert [token for _, _, token in api_server.requests] == ["Bearer first", "Bearer second"]
        (api_server.folder / "token").unlink()
        with pytest.raises(NotPermittedError, match="kubernetes-token"):
            await api.request("GET", "/a")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (web.Response(status=403, text='{"message": "forbidden"}'), "kubernetes-api-refused"),
        (web.Response(status=500, text="oops"), "kubernetes-api-answer"),
        (web.Response(text="[]"), "kubernetes-api-answer"),
        (web.Response(body=b" " * (5 * 1024 * 1024)), "kubernetes-api-unreachable"),
        (web.Response(status=302, headers={"Location": "/b"}), "kubernetes-api-refused"),
    ],
)
async def test_simulated_another_answer_is_an_error(
    api_server: SimulatedApiServer, answer: web.Response, code: str
) -> None:
    api_server.answer = answer
    async with ApiServer(api_server.url, api_server.folder) as api:
        with pytest.raises(UnreachableError) as caught:
            await AskedCluster(api).credential_spec("webapp01")
    assert caught.value.code == code


async def test_simulated_an_api_server_of_another_authority_is_not_believed(
    api_server: SimulatedApiServer,
) -> None:
    other = renewed(None, ["localhost"], datetime.now(UTC))
    (api_server.folder / "ca.crt").write_bytes(other.bundle)
    async with ApiServer(api_server.url, api_server.folder) as api:
        with pytest.raises(UnreachableError, match="kubernetes-api-unreachable"):
            await api.request("GET", "/a")
    assert not api_server.requests


@pytest.mark.parametrize("content", [None, b"", b"x"])
async def test_an_authority_that_cannot_be_read_is_an_error(
    tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "ca.crt").write_bytes(content)
    with pytest.raises(CredspecError, match="kubernetes-authority"):
        async with ApiServer("https://localhost:1", tmp_path):
            pass


def test_the_api_server_is_the_one_that_pods_are_told() -> None:
    named = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}
    assert json.dumps(ApiServer.of_environment(named)._address) == '"https://[fd00::1]:6443"'
    with pytest.raises(CredspecError, match="kubernetes-not-in-cluster"):
        ApiServer.of_environment({})
