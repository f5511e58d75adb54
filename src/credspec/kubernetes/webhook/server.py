"""The webhook on its ports: reviews over TLS, and health and metrics for the cluster.

``POST /mutate`` and ``POST /validate`` take reviews; ``GET /info`` and ``GET /health`` are as
windows-gmsa has them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from credspec import __version__
from credspec.errors import (
    CredspecError,
    TooManyRequestsError,
    UnreachableError,
    internal_error,
)
from credspec.kubernetes.webhook.body_budget import BodyBudget
from credspec.kubernetes.webhook.checks import Cluster
from credspec.kubernetes.webhook.metrics import WebhookMetrics
from credspec.kubernetes.webhook.review import (
    MAX_REVIEW_BYTES,
    Answer,
    Endpoint,
    answer_review,
    refused_review,
)
from credspec.kubernetes.webhook.serving_certificate import ServedCertificate

SECONDS: Final = 5.0
"""How long a review may take in all; the API server waits as long."""

# Parsed, a body takes about ten times its size.
_ALL_BODIES_BYTES: Final = MAX_REVIEW_BYTES
_WAIT_SECONDS: Final = 2.0
_MAX_CONNECTIONS: Final = 256
_HANDSHAKE_SECONDS: Final = 5.0
_IDLE_SECONDS: Final = 60.0
_SHUTDOWN_SECONDS: Final = 10.0
_BACKLOG: Final = 512
_SMALLEST: Final = 16 * 1024


@dataclass(slots=True, kw_only=True)
class Webhook:
    """What answers reviews, and what counts them.

    `report` is called with each refusal: for what, its code and text.
    """

    cluster: Cluster
    report: Callable[[Endpoint, str, str], None] = lambda *_: None
    metrics: WebhookMetrics = field(default_factory=WebhookMetrics)
    budget: BodyBudget = field(default_factory=lambda: BodyBudget(_ALL_BODIES_BYTES, _WAIT_SECONDS))

    def application(self) -> web.Application:
        """Return what is served over TLS."""
        application = web.Application(client_max_size=MAX_REVIEW_BYTES)
        application.router.add_post("/mutate", self._mutate)
        application.router.add_post("/validate", self._validate)
        application.router.add_get("/info", _info)
        application.router.add_get("/health", _health)
        return application

    def health(self, served: ServedCertificate) -> web.Application:
        """Return what is served without TLS: liveness, readiness and metrics."""

        async def ready(_: web.Request) -> web.Response:
            if served.is_loaded.is_set():
                return web.Response(text="ready\n")
            return web.Response(status=503, text="there is no certificate yet\n")

        async def numbers(_: web.Request) -> web.Response:
            content_type = "text/plain; version=0.0.4; charset=utf-8"
            return web.Response(body=self.metrics.text(), headers={"Content-Type": content_type})

        application = web.Application(client_max_size=1024)
        application.router.add_get("/healthz", _health)
        application.router.add_get("/readyz", ready)
        application.router.add_get("/metrics", numbers)
        return application

    async def _mutate(self, request: web.Request) -> web.Response:
        return await self._answered(request, Endpoint.MUTATE)

    async def _validate(self, request: web.Request) -> web.Response:
        return await self._answered(request, Endpoint.VALIDATE)

    async def _answered(self, request: web.Request, endpoint: Endpoint) -> web.Response:
        started = time.monotonic()
        try:
            async with asyncio.timeout(SECONDS):
                answer = await self._answer(request, endpoint)
        except TooManyRequestsError as error:
            answer = Answer(http_status=429, document=error.to_json(), code=error.code)
        except TimeoutError:
            late = UnreachableError.of(
                "kubernetes-webhook-late",
                f"the review was not answered within {SECONDS:g} s",
                where="webhook",
                remedy="look whether the API server answers the webhook's own questions",
            )
            answer = Answer(http_status=504, document=late.to_json(), code=late.code)
        self.metrics.answered(endpoint, answer.code, time.monotonic() - started)
        if answer.code:
            status = answer.document.get("response", {}).get("status", {})
            self.report(endpoint, answer.code, str(status.get("message", "")))
        return web.Response(
            status=answer.http_status,
            body=json.dumps(answer.document, separators=(",", ":")).encode(),
            content_type="application/json",
        )

    async def _answer(self, request: web.Request, endpoint: Endpoint) -> Answer:
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="application/json is expected\n")
        declared = request.content_length
        size = MAX_REVIEW_BYTES if declared is None else max(declared, _SMALLEST)
        if size > MAX_REVIEW_BYTES:
            raise web.HTTPRequestEntityTooLarge(MAX_REVIEW_BYTES, size)
        async with self.budget.taken(size):
            body = await request.read()
            try:
                return await answer_review(body, endpoint, self.cluster)
            except Exception as error:  # noqa: BLE001 - a bug of ours must not look like an outage
                return refused_review(body, internal_error(error, "webhook"))


async def _info(_: web.Request) -> web.Response:
    return web.json_response({"version": __version__})


async def _health(_: web.Request) -> web.Response:
    return web.Response(status=204)


@asynccontextmanager
async def serving(
    application: web.Application, address: tuple[str, int], context: Any = None
) -> AsyncIterator[tuple[str, int]]:
    """Serve an application while the block runs; its value is address and port.

    Raises:
        CredspecError: `kubernetes-webhook-address`.
    """
    runner = web.AppRunner(
        application,
        access_log=None,
        handle_signals=False,
        keepalive_timeout=_IDLE_SECONDS,
        shutdown_timeout=_SHUTDOWN_SECONDS,
        auto_decompress=False,
        logger=_silent_logger(),
    )
    await runner.setup()
    server = runner.server
    assert server is not None  # noqa: S101 - set up, it has one

    def protocol() -> asyncio.BaseProtocol:
        return server() if len(server.connections) < _MAX_CONNECTIONS else _Refused()

    try:
        listening = await _listen(protocol, address, context)
        try:
            name = listening.sockets[0].getsockname()
            yield name[0], name[1]
        finally:
            listening.close()
    finally:
        await runner.cleanup()


async def _listen(
    protocol: Callable[[], asyncio.BaseProtocol], address: tuple[str, int], context: Any
) -> asyncio.Server:
    try:
        return await asyncio.get_running_loop().create_server(
            protocol,
            *address,
            ssl=context,
            ssl_handshake_timeout=None if context is None else _HANDSHAKE_SECONDS,
            backlog=_BACKLOG,
            reuse_address=True,
        )
    except OSError as error:
        raise CredspecError.of(
            "kubernetes-webhook-address",
            error.strerror or str(error),
            where="{}:{}".format(*address),
            expected="an address and a port that are free",
            remedy="choose others with --listen and --health-listen",
        ) from None


class _Refused(asyncio.Protocol):
    """A connection above the limit: it is closed at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _silent_logger() -> logging.Logger:
    """Return a logger for aiohttp: it would log a traceback for each malformed request."""
    logger = logging.getLogger("credspec.kubernetes.webhook.http")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    logger.setLevel(logging.CRITICAL)
    return logger
