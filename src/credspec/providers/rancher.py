"""Rancher's account provider: an HTTPS server of the cluster's, with mutual TLS.

``GET /provider`` with the header ``object: SECRET`` answers with ``username``, ``password`` and
``domainName``; each namespace has a provider of its own, whose port is in a file.
"""

from __future__ import annotations

import http
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from credspec.errors import NotPermittedError, UsageError
from credspec.providers.answers import account_from_json, refuse_answer, refuse_input
from credspec.providers.deadline import Deadline
from credspec.providers.https import HttpsClient, Server
from credspec.providers.private_file import read_private_file
from credspec.providers.provider import HostAccount
from credspec.providers.provider_table import ProviderTable
from credspec.providers.tls import client_context

# Kubernetes' names: of a namespace RFC 1123's label, of a secret its subdomain.
_NAMESPACE: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_SECRET: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*"
)
_MAX_PORT: Final = 65535
_WHERE: Final = "provider rancher"


class RancherProvider:
    """Its input is ``NAMESPACE:SECRET``.

    Settings: `directory`, by default ``/var/lib/rancher/gmsa``, has a directory for each namespace;
    in it are ``port.txt`` and, as PEM, `certificate`, `key` and `ca_file`. The server's certificate
    must be of that authority, whatever the host trusts. `url` names a server in place of the port.
    """

    def __init__(self, settings: Mapping[str, Any], seconds: float) -> None:
        table = ProviderTable("rancher", settings)
        self._directory = table.path("directory", "/var/lib/rancher/gmsa")
        self._files = [
            _relative(table, key, default)
            for key, default in (
                ("certificate", "ssl/client/tls.crt"),
                ("key", "ssl/client/tls.key"),
                ("ca_file", "ssl/ca/tls.crt"),
            )
        ]
        self._server = table.optional_server("url")
        table.close()
        self._seconds = seconds

    def host_account(self, plugin_input: str) -> HostAccount:
        """Ask the namespace's provider for a secret.

        Raises:
            UsageError: `host-account-input`.
            NotPermittedError: `host-account-file`, `host-account-tls`, `host-account-not-given`.
            UnreachableError: `host-account-unreachable`, `host-account-timeout`.
            CredspecError: `host-account-answer`, `host-account-invalid`.
        """
        namespace, _, secret = plugin_input.partition(":")
        if not _NAMESPACE.fullmatch(namespace) or not _SECRET.fullmatch(secret):
            refuse_input(_WHERE, "NAMESPACE:SECRET")
        directory = self._directory / namespace
        deadline = Deadline(self._seconds)
        server, path = self._address(directory)
        certificate, key, authorities = (directory / file for file in self._files)
        context = client_context(
            _WHERE, read_private_file(authorities, _WHERE, secret=False), (certificate, key)
        )
        client = HttpsClient(server, context, deadline, _WHERE)
        status, _, _, body = client.ask("GET", path, {"object": secret})
        if status in {http.HTTPStatus.NOT_FOUND, http.HTTPStatus.FORBIDDEN}:
            raise NotPermittedError.of(
                "host-account-not-given",
                f"it has no secret {secret}, or not for this host (HTTP {status})",
                where=_WHERE,
            )
        if status != http.HTTPStatus.OK:
            refuse_answer(_WHERE, f"HTTP {status}")
        return account_from_json(body, _WHERE)

    def share_of(self, plugin_input: str) -> str:
        """Return the namespace: each has a server of its own."""
        return plugin_input.partition(":")[0]

    def _address(self, directory: Path) -> tuple[Server, str]:
        if self._server is not None:
            server, path = self._server
            return server, path or "/provider"
        text = read_private_file(directory / "port.txt", _WHERE, secret=False)
        digits = text.decode("ascii", "replace").strip()
        if not digits.isdecimal() or not 0 < int(digits[:6]) <= _MAX_PORT:
            refuse_answer(_WHERE, "port.txt holds no port")
        return Server("localhost", int(digits)), "/provider"


def _relative(table: ProviderTable, key: str, default: str) -> Path:
    path = Path(table.text(key, default))
    if path.is_absolute() or ".." in path.parts:
        raise UsageError.of(
            "config-wrong-value",
            "not a path below the namespace's directory",
            where=f"{table.where}.{key}",
        )
    return path
