"""What judges the webhook's certificates, as an API server does."""

from __future__ import annotations

import json
import ssl
from datetime import datetime
from typing import Any

from cryptography import x509

from credspec.kubernetes.api.client import ApiConflictError
from credspec.kubernetes.webhook.serving_certificate import load_into, server_context


def is_trusted(bundle: bytes, certificate: bytes, at: datetime) -> bool:
    """Say whether an API server with this bundle accepts the certificate at a time."""
    leaf = x509.load_pem_x509_certificate(certificate)
    for authority in x509.load_pem_x509_certificates(bundle):
        try:
            leaf.verify_directly_issued_by(authority)
        except Exception:  # noqa: BLE001, S112 - another one's
            continue
        return all(
            each.not_valid_before_utc <= at <= each.not_valid_after_utc
            for each in (leaf, authority)
        )
    return False


def shake_hands(bundle: bytes, certificate: bytes, key: bytes, name: str) -> None:
    """Let OpenSSL, as strict as it can be, verify a server of that name."""
    server = server_context()
    load_into(server, certificate, key)
    client = ssl.create_default_context(cadata=bundle.decode())
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(incoming, outgoing, server_hostname=name)
    other = server.wrap_bio(outgoing, incoming, server_side=True)
    for _ in range(4):
        for side in (one, other):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert one.version() == "TLSv1.3"


class SimulatedConfigurations:
    """Secrets and webhook configurations, with resource versions."""

    def __init__(self) -> None:
        self.version = 1
        self.data: dict[str, str] = {}
        self.bundles: dict[str, list[str]] = {
            "mutatingwebhookconfigurations": ["", ""],
            "validatingwebhookconfigurations": [""],
        }
        self.writes: list[str] = []
        self.before_put: Any = None

    async def get_object(self, path: str) -> dict[str, Any]:
        metadata = {"resourceVersion": str(self.version)}
        if "/secrets/" in path:
            found: dict[str, Any] = json.loads(
                json.dumps({"metadata": metadata, "data": self.data})
            )
            return found
        webhooks = [
            {"clientConfig": {"caBundle": bundle} if bundle else {}}
            for bundle in self.bundles[path.split("/")[-2]]
        ]
        return {"metadata": metadata, "webhooks": webhooks}

    async def put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert "/secrets/" in path
        if self.before_put is not None:
            change, self.before_put = self.before_put, None
            change()
        if body["metadata"]["resourceVersion"] != str(self.version):
            raise ApiConflictError.of("kubernetes-api-conflict", "409: modified")
        self.version += 1
        self.data = body["data"]
        self.writes.append("secret")
        return body

    async def patch(self, path: str, changes: list[dict[str, Any]]) -> dict[str, Any]:
        kind = path.split("/")[-2]
        test, *others = changes
        assert test == {
            "op": "test",
            "path": "/metadata/resourceVersion",
            "value": str(self.version),
        }
        self.writes.append(kind)
        for change in others:
            self.bundles[kind][int(change["path"].split("/")[2])] = change["value"]
        return await self.get_object(path)
