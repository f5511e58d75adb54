"""The webhook put together, before a simulated API server over TLS."""

from __future__ import annotations

import asyncio
import base64
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from credspec.errors import CredspecError
from credspec.kubernetes.api.server import ApiServer
from credspec.kubernetes.webhook import service
from credspec.kubernetes.webhook.serving_certificate import CertificateFiles
from credspec.service.events import Event
from support.kubernetes.simulated_api_server import TOKEN, SimulatedApiServer, credspec, status
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


Events = list[tuple[Event, dict[str, Any]]]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Events:
    found: Events = []
    monkeypatch.setattr(service, "emit", lambda event, **fields: found.append((event, fields)))
    return found


@asynccontextmanager
async def running(
    api_server: SimulatedApiServer, events: Events, until: Event, **settings: Any
) -> AsyncIterator[None]:
    """Run a webhook from a moment when it has reported `until`; SIGTERM ends it."""
    made = service.WebhookSettings(
        **{"listen": ("127.0.0.1", 0), "health": ("127.0.0.1", 0), "drain_seconds": 0.0} | settings
    )
    task = asyncio.create_task(service.run(made, api_server.server))
    async with asyncio.timeout(60):
        while until not in dict(events):
            await asyncio.sleep(0.01)
    yield
    signal.raise_signal(signal.SIGTERM)
    async with asyncio.timeout(60):
        await task


def port_in(events: Events) -> int:
    return int(dict(events)[Event.WEBHOOK_READY]["address"].rpartition(":")[2])


async def test_simulated_a_webhook_from_its_first_start_to_its_end(
    api_server: SimulatedApiServer, events: Events
) -> None:
    configuration = SimulatedConfiguration()
    api_server.before = configuration.answer
    async with running(api_server, events, Event.WEBHOOK_READY, namespace="credspec"):
        port = port_in(events)
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
    keys = {"tls.crt", "tls.key", "ca.crt", "ca.key"}
    assert configuration.secret["data"].keys() == keys


async def test_an_authority_that_cannot_be_read_ends_it_at_once(tmp_path: Path) -> None:
    server = ApiServer("https://localhost:1", tmp_path / "ca.crt", tmp_path / "token")
    with pytest.raises(CredspecError, match="kubernetes-ca-file"):
        await service.run(service.WebhookSettings(), server)


async def test_simulated_a_webhook_with_a_certificate_from_elsewhere_makes_none(
    api_server: SimulatedApiServer, authority: Authority, events: Events
) -> None:
    certificate, key = authority.issue("localhost")
    files = CertificateFiles(certificate=certificate, key=key)
    async with running(api_server, events, Event.WEBHOOK_READY, files=files):
        context = ssl.create_default_context(cafile=str(authority.certificate))
        connector = aiohttp.TCPConnector(ssl=context)
        url = f"https://127.0.0.1:{port_in(events)}/info"
        async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as found:
            assert found.status == 200
    assert api_server.asked == []


async def test_simulated_a_webhook_keeps_its_certificate_in_the_namespace_of_its_pod(
    api_server: SimulatedApiServer, events: Events, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(service, "SERVICE_ACCOUNT", tmp_path)
    with pytest.raises(CredspecError, match="kubernetes-namespace-unknown"):
        await service.run(service.WebhookSettings(), api_server.server)
    (tmp_path / "namespace").write_text("security\n")
    api_server.before = SimulatedConfiguration().answer
    async with running(api_server, events, Event.WEBHOOK_READY):
        pass
    assert ("PUT", f"/api/v1/namespaces/security/secrets/{NAME}") in api_server.asked


async def test_simulated_a_webhook_without_a_certificate_says_why_and_is_not_ready(
    api_server: SimulatedApiServer, events: Events
) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return status(403, "secrets is forbidden")

    api_server.before = refuse
    failed = Event.WEBHOOK_CERTIFICATE_FAILED
    async with running(api_server, events, failed, namespace="credspec"):
        assert "secrets is forbidden" in dict(events)[failed]["error"]
        assert Event.WEBHOOK_READY not in dict(events)


async def test_simulated_a_webhook_that_is_ended_answers_on_for_a_while(
    api_server: SimulatedApiServer, authority: Authority, events: Events
) -> None:
    """API servers learn late that it is gone."""
    certificate, key = authority.issue("localhost")
    settings = service.WebhookSettings(
        listen=("127.0.0.1", 0),
        health=("127.0.0.1", 0),
        files=CertificateFiles(certificate=certificate, key=key),
        drain_seconds=3600.0,
    )
    task = asyncio.create_task(service.run(settings, api_server.server))
    async with asyncio.timeout(60):
        while Event.WEBHOOK_READY not in dict(events):
            await asyncio.sleep(0.01)
    signal.raise_signal(signal.SIGTERM)
    done, _ = await asyncio.wait({task}, timeout=1)
    assert not done
    context = ssl.create_default_context(cafile=str(authority.certificate))
    connector = aiohttp.TCPConnector(ssl=context)
    url = f"https://127.0.0.1:{port_in(events)}/info"
    async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as found:
        assert found.status == 200
    task.cancel()
    await asyncio.wait({task}, timeout=60)
    assert task.cancelled()
