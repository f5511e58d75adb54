"""Secrets of the cluster that the agent runs in, of the agent's own namespace and no other."""

from __future__ import annotations

import base64
import binascii
import http
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

from credspec.config_table import PATH, TEXT, Key, Table
from credspec.errors import NotPermittedError
from credspec.providers.answers import account_from_json, refuse_answer, refuse_input
from credspec.providers.deadline import Deadline
from credspec.providers.https import HttpsClient
from credspec.providers.private_file import read_private_file
from credspec.providers.provider import HostAccount
from credspec.providers.provider_table import SERVER, TEXTS, ProviderTable, read_table
from credspec.providers.server_url import Server, server_url
from credspec.providers.tls import client_context

# Kubernetes' names: of a namespace RFC 1123's label, of a secret its subdomain.
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAMESPACE: Final = re.compile(_LABEL)
_SECRET: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*"
)
_SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_WHERE: Final = "provider kubernetes"
_DENIED: Final = frozenset({http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN})


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesSettings(ProviderTable):
    """Settings of `KubernetesProvider`; all but `secrets` are as every pod has them."""

    table: ClassVar = Table("providers.kubernetes", "Secrets of the agent's own namespace.")

    secrets: Annotated[
        tuple[str, ...],
        Key(
            kind=TEXTS,
            meaning="The names of the Secrets that credential specs may name, and no others.",
            reloaded=True,
        ),
    ]
    namespace: Annotated[
        str | None,
        Key(
            kind=TEXT,
            meaning="The namespace of the Secrets.",
            default="that of the agent's pod",
            reloaded=True,
        ),
    ] = None
    url: Annotated[
        tuple[Server, str] | None,
        Key(
            kind=SERVER,
            meaning="The API server.",
            default="as the variables of the agent's pod say",
            reloaded=True,
        ),
    ] = None
    ca_file: Annotated[
        Path,
        Key(
            kind=PATH,
            meaning="The only authorities, in PEM, that may sign the API server's certificate.",
            reloaded=True,
        ),
    ] = _SERVICE_ACCOUNT / "ca.crt"
    token_file: Annotated[
        Path,
        Key(
            kind=PATH,
            meaning="The token of the agent's service account.",
            reloaded=True,
        ),
    ] = _SERVICE_ACCOUNT / "token"


class KubernetesProvider:
    """Its input is ``SECRET``, or ``NAMESPACE:SECRET`` as in specs for Rancher's provider.

    The Secret has the keys ``username``, ``password`` and ``domainName``. The kubelet keeps the
    files of its settings up to date; they are read for each request.
    """

    declared: ClassVar = KubernetesSettings

    def __init__(self, settings: Mapping[str, Any], seconds: float) -> None:
        self._settings = read_table(KubernetesSettings, settings, "providers.kubernetes")
        self._seconds = seconds

    def host_account(self, plugin_input: str) -> HostAccount:
        """Read a Secret.

        Raises:
            UsageError: `host-account-input`.
            NotPermittedError: `host-account-file`, `host-account-tls`, `host-account-not-given`.
            UnreachableError: `host-account-unreachable`, `host-account-timeout`.
            CredspecError: `host-account-answer`, `host-account-invalid`.
        """
        before, colon, secret = plugin_input.rpartition(":")
        if not _SECRET.fullmatch(secret) or (colon and not _NAMESPACE.fullmatch(before)):
            refuse_input(_WHERE, "SECRET or NAMESPACE:SECRET")
        namespace = self._namespace()
        if secret not in self._settings.secrets or (colon and before != namespace):
            raise NotPermittedError.of(
                "host-account-not-given",
                "the Secret is not among those that specs may name",
                where=_WHERE,
                expected=f"one of `secrets`, in the namespace {namespace}",
            )
        server, base = self._settings.url or (_server_of_pod(), "")
        authorities = _mounted(self._settings.ca_file, is_secret=False)
        client = HttpsClient(
            server, client_context(_WHERE, authorities), Deadline(self._seconds), _WHERE
        )
        token = _mounted(self._settings.token_file).decode("ascii", "replace").strip()
        if not token.isascii() or not token.isprintable() or not token:
            raise NotPermittedError.of(
                "host-account-file",
                f"{self._settings.token_file}: no token",
                where=_WHERE,
                expected="the token of the agent's service account",
            )
        target = f"{base}/api/v1/namespaces/{namespace}/secrets/{secret}"
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        status, _, _, body = client.ask("GET", target, headers)
        if status in _DENIED or status == http.HTTPStatus.NOT_FOUND:
            raise NotPermittedError.of(
                "host-account-not-given",
                f"there is no Secret {secret}, or the agent may not get it (HTTP {status})",
                where=_WHERE,
                remedy="look at the Secret and at the Role of the agent's service account in the "
                f"namespace {namespace}",
            )
        if status != http.HTTPStatus.OK:
            refuse_answer(_WHERE, f"HTTP {status}")
        return account_from_json(_data_of(body), _WHERE)

    def _namespace(self) -> str:
        found = self._settings.namespace
        if found is None:
            file = self._settings.token_file.with_name("namespace")
            found = _mounted(file, is_secret=False).decode("ascii", "replace").strip()
        if not _NAMESPACE.fullmatch(found):
            refuse_answer(_WHERE, "the namespace of the agent's pod is none")
        return found


def _mounted(path: Path, *, is_secret: bool = True) -> bytes:
    """Return the content of a file that the kubelet may have mounted: those are behind links.

    Raises:
        NotPermittedError: `host-account-file`.
    """
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError):
        real = path
    return read_private_file(real, _WHERE, secret=is_secret)


def _server_of_pod() -> Server:
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    port = os.environ.get("KUBERNETES_SERVICE_PORT_HTTPS") or os.environ.get(
        "KUBERNETES_SERVICE_PORT", ""
    )
    found = server_url(f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}")
    if found is None:
        raise NotPermittedError.of(
            "host-account-not-given",
            "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT do not name the API server",
            where=_WHERE,
            remedy="run the agent as a pod, or set providers.kubernetes.url",
        )
    return found[0]


def _data_of(body: bytes) -> str:
    """Return the texts of a Secret as a JSON object; what else is in it is left out."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(data, dict):
        refuse_answer(_WHERE, "no Secret with data")
    texts = {}
    for key, value in data.items():
        try:
            texts[key] = base64.b64decode(value, validate=True).decode()
        except (TypeError, ValueError, binascii.Error):
            continue
    return json.dumps(texts)
