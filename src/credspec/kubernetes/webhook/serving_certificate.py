"""Where the certificate that is served comes from, and how it is replaced while the server runs."""

from __future__ import annotations

import asyncio
import os
import random
import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

from credspec.errors import CredspecError, NotPermittedError
from credspec.kubernetes.api.client import ApiConflictError
from credspec.kubernetes.webhook.authority_bundle import bundle_to_publish
from credspec.kubernetes.webhook.certificates import Certificates, renewed

_CHECK_SECONDS: Final = 60.0
_RETRY_SECONDS: Final = 5.0
_ATTEMPTS: Final = 5
_LEARNT_SECONDS: Final = 2.0  # until each API server has seen a change of a configuration
_MAX_FILE_BYTES: Final = 256 * 1024
_CONFIGURATIONS: Final = "/apis/admissionregistration.k8s.io/v1"


class Objects(Protocol):
    """The API server, as far as certificates need it; see `credspec.kubernetes.api.client`."""

    async def get_object(self, path: str) -> dict[str, Any]:
        """Return an object."""

    async def put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Replace an object; an `ApiConflictError` if it is another one than was read."""

    async def patch(self, path: str, changes: list[dict[str, Any]]) -> dict[str, Any]:
        """Change an object by the operations of RFC 6902."""


def server_context() -> ssl.SSLContext:
    """Return the settings of TLS, without a certificate as yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


def load_into(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Serve another certificate from the next connection on; a wrong one changes nothing.

    Raises:
        NotPermittedError: `kubernetes-webhook-certificate`.
    """
    try:
        with _as_file(certificate) as chain, _as_file(key) as private:
            server_context().load_cert_chain(chain, private, password=_no_password)
            context.load_cert_chain(chain, private, password=_no_password)
    except (OSError, ValueError) as error:
        raise NotPermittedError.of(
            "kubernetes-webhook-certificate",
            f"certificate and key cannot be used ({type(error).__name__})",
            where="certificate of the webhook",
            expected="PEM, the key without a password and of that certificate",
        ) from None


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    # OpenSSL takes paths only; this one is in memory, and nobody else's.
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _no_password() -> str:
    raise ValueError("the key has a password")


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFiles:
    """Certificate and key in files, as cert-manager has them mounted."""

    certificate: Path
    key: Path

    async def current(self) -> tuple[bytes, bytes]:
        """Return what the files hold now.

        Raises:
            NotPermittedError: `kubernetes-webhook-certificate`.
        """
        return await asyncio.to_thread(self._read)

    def _read(self) -> tuple[bytes, bytes]:
        try:
            return self._read_both()
        except OSError as error:
            raise NotPermittedError.of(
                "kubernetes-webhook-certificate",
                error.strerror or str(error),
                where=str(error.filename or self.certificate),
                expected="a certificate and a key in PEM",
                remedy="look whether cert-manager has issued it: kubectl get certificate",
            ) from None

    def _read_both(self) -> tuple[bytes, bytes]:
        certificate, key = _content(self.certificate), _content(self.key)
        # Both of one moment: the kubelet may have replaced both in between.
        for _ in range(_ATTEMPTS):
            again = _content(self.certificate)
            if again == certificate:
                break
            certificate, key = again, _content(self.key)
        return certificate, key


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_FILE_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateSecret:
    """The certificate that replicas make themselves and share in a Secret.

    `secret` exists already, empty at first, so that no right to create any is needed. The
    authorities are written into the webhook configurations `configuration`.
    """

    api: Objects
    namespace: str
    secret: str
    names: Sequence[str]
    configuration: str
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def current(self) -> tuple[bytes, bytes]:
        """Return the certificate and the key, after API servers have learnt of its authority.

        Raises:
            CredspecError: `kubernetes-secret-contended`, and as `ApiClient.put`.
        """
        path = f"/api/v1/namespaces/{self.namespace}/secrets/{self.secret}"
        for _ in range(_ATTEMPTS):
            secret = await self.api.get_object(path)
            held = Certificates.from_secret(secret.get("data") or {})
            used = await asyncio.to_thread(renewed, held, self.names, self.now())
            if used is not held:
                # With its resourceVersion, so that of two replicas one is refused.
                try:
                    await self.api.put(path, {**secret, "data": used.to_secret()})
                except ApiConflictError:
                    continue
            if await self._publish(used):
                await self.sleep(_LEARNT_SECONDS)
            return used.certificate, used.key
        raise CredspecError.of(
            "kubernetes-secret-contended",
            "another replica changed the Secret each time",
            where=f"secret {self.namespace}/{self.secret}",
            remedy="it is tried again",
        )

    async def _publish(self, used: Certificates) -> bool:
        """Write the authorities into the configurations; return whether that changed any."""
        is_changed = False
        for kind in ("mutatingwebhookconfigurations", "validatingwebhookconfigurations"):
            path = f"{_CONFIGURATIONS}/{kind}/{self.configuration}"
            patch = _bundle_patch(await self.api.get_object(path), used, self.now())
            if patch:
                await self.api.patch(path, patch)
                is_changed = True
        return is_changed


def _bundle_patch(
    configuration: dict[str, Any], used: Certificates, now: datetime
) -> list[dict[str, Any]]:
    changes = []
    for index, webhook in enumerate(configuration.get("webhooks") or []):
        published = (webhook.get("clientConfig") or {}).get("caBundle") or ""
        bundle = bundle_to_publish(used, published, now)
        if bundle != published:
            path = f"/webhooks/{index}/clientConfig/caBundle"
            changes.append({"op": "add", "path": path, "value": bundle})
    version = (configuration.get("metadata") or {}).get("resourceVersion")
    test = {"op": "test", "path": "/metadata/resourceVersion", "value": version}
    return [test, *changes] if changes else []


class CertificateSource(Protocol):
    """Where certificate and key come from."""

    async def current(self) -> tuple[bytes, bytes]:
        """Return certificate and key, in PEM; failures are `CredspecError`."""


class ServedCertificate:
    """The certificate that a server's `context` has, kept up to date.

    `report` is called with each new certificate, in PEM, and with the error of each attempt that
    failed.
    """

    def __init__(
        self,
        source: CertificateSource,
        report: Callable[[bytes | CredspecError], None],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.context: Final = server_context()
        self.is_loaded = asyncio.Event()
        self._source = source
        self._report = report
        self._sleep = sleep
        self._served: tuple[bytes, bytes] | None = None

    async def update(self) -> bool:
        """Serve what the source has now; return whether that could be done."""
        try:
            found = await self._source.current()
            if found != self._served:
                load_into(self.context, *found)
                self._served = found
                self._report(found[0])
        except CredspecError as error:
            self._report(error)
            return False
        self.is_loaded.set()
        return True

    async def keep_updated(self) -> None:
        """Update again and again; what is served stays while that fails."""
        while True:
            is_done = await self.update()
            seconds = _CHECK_SECONDS if is_done else _RETRY_SECONDS
            await self._sleep(seconds * random.uniform(0.8, 1.2))  # noqa: S311 - spreads replicas
