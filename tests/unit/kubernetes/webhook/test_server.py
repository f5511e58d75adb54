"""The webhook on its ports: TLS, limits, health, and what it counts."""

from __future__ import annotations

import asyncio
import io
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives import serialization

from credspec.errors import CredspecError, TooManyRequestsError
from credspec.kubernetes.webhook import server
from credspec.kubernetes.webhook.body_budget import BodyBudget
from credspec.kubernetes.webhook.certificates import Certificates, renewed
from credspec.kubernetes.webhook.review import MAX_REVIEW_BYTES, Endpoint
from credspec.kubernetes.webhook.server import Webhook, serving
from credspec.kubernetes.webhook.serving_certificate import ServedCertificate
from support.webhook.reviews import SimulatedCluster, gmsa, patch_in, review

NAMES = ["localhost"]
POD = {"metadata": {"annotations": {"credspec.dev/gmsa": "webapp01"}}, "spec": {"containers": [{}]}}


def encrypted(key: bytes) -> bytes:
    return serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"password"),
    )


class Source:
    def __init__(self, made: Certificates) -> None:
        self.made = made

    async def current(self) -> tuple[bytes, bytes]:
        return self.made.certificate, self.made.key


class Running:
    """A webhook that listens, and a client that trusts its authority."""

    def __init__(self, webhook: Webhook, served: ServedCertificate, source: Source) -> None:
        self.webhook, self.served, self.source = webhook, served, source
        self.port = self.health_port = 0
        self.refusals: list[tuple[Endpoint, str, str]] = []

    async def send(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        context = ssl.create_default_context(cadata=self.source.made.bundle.decode())
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
            session.post(
                f"https://localhost:{self.port}{path}",
                data=body,
                headers={"Content-Type": "application/json"} | headers,
            ) as response,
        ):
            text = await response.text()
            return response.status, json.loads(text) if text.startswith("{") else text

    async def get(self, path: str) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.health_port}{path}") as response,
        ):
            return response.status, await response.text()


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    source = Source(renewed(None, NAMES, datetime.now(UTC)))
    served = ServedCertificate(source, lambda _: None)
    webhook = Webhook(cluster=SimulatedCluster({"webapp01": gmsa("webapp01")}, set()))
    made = Running(webhook, served, source)
    webhook.report = lambda *reported: made.refusals.append(reported)
    async with (
        serving(webhook.health(served), ("127.0.0.1", 0)) as (_, health_port),
        serving(webhook.application(), ("127.0.0.1", 0), served.context) as (_, port),
    ):
        made.port, made.health_port = port, health_port
        yield made


async def test_a_review_is_answered_over_tls(running: Running) -> None:
    assert (await running.get("/readyz"))[0] == 503
    await running.served.update()
    assert (await running.get("/readyz"))[0] == 200
    assert (await running.get("/healthz"))[0] == 204
    status, document = await running.send("/mutate", review(POD))
    assert status == 200
    assert any(each["path"] == "/spec/volumes" for each in patch_in(document))
    status, document = await running.send("/validate", review(POD))
    assert (status, document["response"]["status"]["code"]) == (200, 403)
    assert [each[:2] for each in running.refusals] == [
        (Endpoint.VALIDATE, "kubernetes-spec-not-authorized")
    ]
    numbers = (await running.get("/metrics"))[1]
    assert 'credspec_webhook_reviews_total{code="",endpoint="mutate"} 1.0' in numbers


async def test_another_certificate_is_served_without_a_restart(running: Running) -> None:
    await running.served.update()
    assert (await running.send("/mutate", review(POD)))[0] == 200
    running.source.made = renewed(None, NAMES, datetime.now(UTC))
    with pytest.raises(aiohttp.ClientError):
        await running.send("/mutate", review(POD))
    await running.served.update()
    assert (await running.send("/mutate", review(POD)))[0] == 200


async def test_a_certificate_that_cannot_be_used_leaves_the_one_before(running: Running) -> None:
    made = running.source.made
    await running.served.update()
    for key in (renewed(None, NAMES, datetime.now(UTC)).key, b"", encrypted(made.key)):
        other = renewed(None, NAMES, datetime.now(UTC))
        running.source.made = replace(other, key=key)
        assert not await running.served.update()
        running.source.made = made
        assert (await running.send("/mutate", review(POD)))[0] == 200


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/mutate", b"{}", {"Content-Type": "text/plain"}, 415),
        ("/other", b"{}", {}, 404),
        ("/info", b"{}", {}, 405),
        ("/validate", b"", {}, 400),
        ("/mutate", io.BytesIO(b"x" * (MAX_REVIEW_BYTES + 1)), {}, 413),
    ],
)
async def test_other_requests_are_refused(
    running: Running, path: str, body: Any, headers: dict[str, str], status: int
) -> None:
    await running.served.update()
    assert (await running.send(path, body, **headers))[0] == status
    assert (await running.send("/mutate", review(POD)))[0] == 200


async def test_a_body_without_a_length_may_not_be_longer_either(running: Running) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(MAX_REVIEW_BYTES // 65536 + 1):
            yield b" " * 65536

    await running.served.update()
    assert (await running.send("/mutate", parts()))[0] == 413


async def test_a_bug_refuses_the_pod_with_its_kind_only(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise KeyError("secret")

    monkeypatch.setattr("credspec.kubernetes.webhook.review.patch_of_pod", fails)
    await running.served.update()
    status, document = await running.send("/mutate", review(POD))
    assert status == 200
    assert document["response"]["status"]["code"] == 500
    message = document["response"]["status"]["message"]
    assert "internal error in credspec (KeyError)" in message
    assert "secret" not in message


async def test_a_review_that_takes_too_long_is_refused_with_a_reason(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(running.webhook.cluster, "may_use", never)
    monkeypatch.setattr(server, "SECONDS", 0.1)
    await running.served.update()
    status, document = await running.send("/validate", review(POD))
    assert status == 504
    assert CredspecError.from_json(document).code == "kubernetes-webhook-late"
    assert [code for _, code, _ in running.refusals] == ["kubernetes-webhook-late"]
    # What it had taken of the memory for bodies is there again.
    monkeypatch.setattr(server, "SECONDS", 60.0)
    for _ in range(3):
        assert (await running.send("/mutate", io.BytesIO(b" " * MAX_REVIEW_BYTES)))[0] == 400


async def test_connections_above_the_limit_are_closed(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_MAX_CONNECTIONS", 2)
    address = ("127.0.0.1", running.health_port)
    held = [await asyncio.open_connection(*address) for _ in range(3)]
    async with asyncio.timeout(60):
        assert await held[2][0].read() == b""
    held[0][1].write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
    async with asyncio.timeout(60):
        assert await held[0][0].readline() == b"HTTP/1.1 204 No Content\r\n"
    for _, writer in held:
        writer.close()


async def test_a_port_that_is_taken_is_an_error(running: Running) -> None:
    with pytest.raises(CredspecError, match="kubernetes-webhook-address"):
        async with serving(running.webhook.application(), ("127.0.0.1", running.port)):
            pass


async def test_bodies_share_their_memory() -> None:
    budget = BodyBudget(100, 0.05)
    async with budget.taken(60):
        with pytest.raises(TooManyRequestsError, match="kubernetes-webhook-busy"):
            async with budget.taken(41):
                pass
        async with budget.taken(40):
            pass
    waiting = BodyBudget(100, 5.0)
    order = []

    async def take(size: int) -> None:
        async with waiting.taken(size):
            order.append(size)
            await asyncio.sleep(0)

    # One that asks for more than there is gets all of it.
    await asyncio.gather(take(100), take(1000), take(10))
    assert sorted(order) == [10, 100, 1000]
