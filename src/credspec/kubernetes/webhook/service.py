"""The webhook as a service: its parts put together, until SIGTERM."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final

from cryptography import x509

from credspec.errors import CredspecError, NotPermittedError
from credspec.kubernetes.api.client import ApiClient
from credspec.kubernetes.api.server import SERVICE_ACCOUNT, ApiServer
from credspec.kubernetes.webhook.cluster_queries import ClusterQueries, webhook_client
from credspec.kubernetes.webhook.review import Endpoint
from credspec.kubernetes.webhook.server import Webhook, serving
from credspec.kubernetes.webhook.serving_certificate import (
    CertificateFiles,
    CertificateSecret,
    CertificateSource,
    ServedCertificate,
)
from credspec.rate_limit import Throttle
from credspec.service.events import Event, emit
from credspec.service.signals import handle_signals

DRAIN_SECONDS: Final = 5.0
"""How long it goes on after SIGTERM: API servers learn late that an address is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSettings:
    """How the webhook is run.

    `files` are certificate and key from elsewhere; without, the webhook makes its own and keeps it
    in the Secret `secret`. `service` is the Service in front of it, `configuration` the name of
    both webhook configurations.
    """

    listen: tuple[str, int] = ("", 8443)
    health: tuple[str, int] = ("", 8080)
    files: CertificateFiles | None = None
    namespace: str = ""
    service: str = "credspec-webhook"
    secret: str = "credspec-webhook"  # noqa: S105 - a name
    configuration: str = "credspec-webhook"
    drain_seconds: float = DRAIN_SECONDS


async def run(settings: WebhookSettings, server: ApiServer) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        CredspecError: `kubernetes-webhook-address`, `kubernetes-namespace-unknown`,
            `kubernetes-ca-file`.
    """
    await asyncio.to_thread(server.tls_context)  # said at the start, not with the first pod
    stop = asyncio.Event()
    handle_signals(stop.set)
    async with AsyncExitStack() as stack:
        api = webhook_client(server)
        stack.push_async_callback(api.close)
        webhook = Webhook(cluster=ClusterQueries(api), report=_Refusals().report)
        served = ServedCertificate(_source(settings, api), partial(_report_certificate, webhook))
        health = webhook.health(served)
        await stack.enter_async_context(serving(health, settings.health))
        updating = asyncio.create_task(served.keep_updated())
        stack.callback(updating.cancel)
        address = await stack.enter_async_context(
            serving(webhook.application(), settings.listen, served.context)
        )
        announcing = asyncio.create_task(_announce(served, address))
        stack.callback(announcing.cancel)
        await stop.wait()
        updating.cancel()
        served.is_loaded.clear()
        await asyncio.sleep(settings.drain_seconds)


async def _announce(served: ServedCertificate, address: tuple[str, int]) -> None:
    await served.is_loaded.wait()
    emit(Event.WEBHOOK_READY, address=f"{address[0]}:{address[1]}")


def _source(settings: WebhookSettings, api: ApiClient) -> CertificateSource:
    if settings.files is not None:
        return settings.files
    namespace = settings.namespace or _own_namespace()
    return CertificateSecret(
        api=api,
        namespace=namespace,
        secret=settings.secret,
        # The API server calls a service by the first of them.
        names=[f"{settings.service}.{namespace}.svc", f"{settings.service}.{namespace}"],
        configuration=settings.configuration,
    )


def _own_namespace() -> str:
    path = SERVICE_ACCOUNT / "namespace"
    try:
        return path.read_text("ascii").strip()
    except (OSError, ValueError):
        raise NotPermittedError.of(
            "kubernetes-namespace-unknown",
            "the pod's namespace is not known",
            where=str(path),
            remedy="name it with --namespace",
        ) from None


def _report_certificate(webhook: Webhook, found: bytes | CredspecError) -> None:
    if isinstance(found, CredspecError):
        emit(Event.WEBHOOK_CERTIFICATE_FAILED, error=str(found))
        return
    end = x509.load_pem_x509_certificate(found).not_valid_after_utc
    webhook.metrics.serves_until(end.timestamp())
    emit(Event.WEBHOOK_CERTIFICATE, expires=end.isoformat())


class _Refusals:
    """Logs refusals, a few of each kind a minute: a controller repeats them without end."""

    def __init__(self) -> None:
        self._throttle: Throttle[str] = Throttle()

    def report(self, endpoint: Endpoint, code: str, text: str) -> None:
        for each in self._throttle.take_suppressed():
            emit(Event.POD_REFUSED, code=each.key or "", suppressed=each.count)
        if self._throttle.allows(code):
            emit(Event.POD_REFUSED, endpoint=str(endpoint), code=code, error=text)
