"""The webhook put together, before a simulated API server over TLS."""

from __future__ import annotations

import asyncio
import base64
import signal
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from credspec.errors import CredspecError
from credspec.kubernetes.api.server import ApiServer
from credspec.kubernetes.webhook import service
from credspec.service.events import Event
from support.kubernetes.simulated_api_server import TOKEN, SimulatedApiServer, credspec
from support.servers.certificate_authority import Authority
from support.webhook.reviews import patch_in, review

NAME = "credspec-webhook"
POD = {
    "metadata": {"annotations": {"credspec.dev/gmsa": "webapp01"}},
    "spec": {"serviceAccountName": "web", "containers": [{"name": "app"}]},
}


class SimulatedConfiguration:
    """The Secret and the webhook configurations of a simulated API server."""

    def __init__(self) -> None:
        self.secret: dict[str, Any] = {"metadata": {"name": NAME, "resourceVersion": "1"}}
        self.bundles: dict[str, str] = {}

    async def answer(self, request: web.Request) -> web.Response | None:
        assert request.headers["Authorization"] == f"Bearer {TOKEN}"
        body = await request.json() if request.can_read_body else None
        *_, kind, _ = request.path.split("/")
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
        return None


@pytest.fixture
async def api_server(tmp_path: Path, authority: Authority) -> AsyncIterator[SimulatedApiServer]:
    found = SimulatedApiServer(tmp_path, authority)
    found.objects["webapp01"] = credspec("WebApp01")
    found.bound.add(("shop", "web", "webapp01"))
    async with found.serving():
        yield found


async def test_simulated_a_webhook_from_its_first_start_to_its_end(
    api_server: SimulatedApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[Event, dict[str, Any]]] = []
    monkeypatch.setattr(service, "emit", lambda event, **fields: events.append((event, fields)))
    configuration = SimulatedConfiguration()
    api_server.before = configuration.answer
    settings = service.WebhookSettings(
        listen=("127.0.0.1", 0),
        health=("127.0.0.1", 0),
        namespace="credspec",
        drain_seconds=0.0,
    )
    running = asyncio.create_task(service.run(settings, api_server.server))
    async with asyncio.timeout(60):
        while Event.WEBHOOK_READY not in dict(events):
            await asyncio.sleep(0.01)
    port = int(dict(events)[Event.WEBHOOK_READY]["address"].rpartition(":")[2])
    (bundle,) = {*configuration.bundles.values()}
    assert len(configuration.bundles) == 2
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
    assert configuration.secret["data"].keys() == keys


async def test_an_authority_that_cannot_be_read_ends_it_at_once(tmp_path: Path) -> None:
    server = ApiServer("https://localhost:1", tmp_path / "ca.crt", tmp_path / "token")
    with pytest.raises(CredspecError, match="kubernetes-ca-file"):
        await service.run(service.WebhookSettings(), server)
