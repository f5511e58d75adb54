"""Rancher's account provider: an HTTPS server of the cluster's, with mutual TLS.

``GET /provider`` with the header ``object: SECRET`` answers with ``username``, ``password`` and
``domainName``; each namespace has a provider of its own, whose port is in a file.
"""

from __future__ import annotations

import http.client
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from credspec.errors import NotPermittedError, UnreachableError, UsageError
from credspec.providers.answers import (
    MAX_ANSWER_BYTES,
    account_from_json,
    refuse_answer,
    refuse_input,
)
from credspec.providers.host_account import HostAccount
from credspec.providers.private_file import read_private_file
from credspec.providers.provider_table import ProviderTable

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
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
        self._url = table.optional_text("url")
        table.close()
        if self._url is not None and urlsplit(self._url).scheme != "https":
            raise UsageError.of(
                "config-wrong-value", "not https", where=f"{table.where}.url", expected="https://"
            )
        self._seconds = seconds

    def host_account(self, plugin_input: str) -> HostAccount:
        """Ask the namespace's provider for a secret.

        Raises:
            UsageError: `host-account-input`.
            NotPermittedError: `host-account-file`, `host-account-tls`, `host-account-not-given`.
            UnreachableError: `host-account-unreachable`.
            CredspecError: `host-account-answer`, `host-account-invalid`.
        """
        namespace, _, secret = plugin_input.partition(":")
        if not _NAME.fullmatch(namespace) or not _NAME.fullmatch(secret):
            refuse_input(_WHERE, "NAMESPACE:SECRET")
        directory = self._directory / namespace
        host, port, path = self._address(directory)
        connection = http.client.HTTPSConnection(
            host, port, timeout=self._seconds, context=self._context(directory)
        )
        try:
            connection.request("GET", path, headers={"object": secret, "Connection": "close"})
            with connection.getresponse() as answer:
                status, body = answer.status, answer.read(MAX_ANSWER_BYTES + 1)
        except ssl.SSLError as error:
            raise NotPermittedError.of(
                "host-account-tls", error.reason or "TLS failed", where=_WHERE
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError.of(
                "host-account-unreachable",
                f"{host}:{port}: {type(error).__name__}",
                where=_WHERE,
                remedy="see whether the account provider of the namespace runs",
            ) from None
        finally:
            connection.close()
        if status in {http.HTTPStatus.NOT_FOUND, http.HTTPStatus.FORBIDDEN}:
            raise NotPermittedError.of(
                "host-account-not-given",
                f"it has no secret {secret}, or not for this host (HTTP {status})",
                where=_WHERE,
            )
        if status != http.HTTPStatus.OK:
            refuse_answer(_WHERE, f"HTTP {status}")
        return account_from_json(body, _WHERE)

    def _address(self, directory: Path) -> tuple[str, int, str]:
        if self._url is not None:
            parts = urlsplit(self._url)
            return parts.hostname or "", parts.port or 443, parts.path or "/provider"
        text = read_private_file(directory / "port.txt", _WHERE, secret=False)
        digits = text.decode("ascii", "replace").strip()
        if not digits.isdecimal() or not 0 < int(digits[:6]) <= _MAX_PORT:
            refuse_answer(_WHERE, "port.txt holds no port")
        return "localhost", int(digits), "/provider"

    def _context(self, directory: Path) -> ssl.SSLContext:
        certificate, key, authorities = (directory / file for file in self._files)
        read_private_file(key, _WHERE)
        trusted = read_private_file(authorities, _WHERE, secret=False)
        try:
            context = ssl.create_default_context(cadata=trusted.decode("ascii", "replace"))
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(certificate, key, password=_no_password)
        except (OSError, ValueError) as error:
            raise NotPermittedError.of(
                "host-account-tls",
                f"certificate, key or ca_file cannot be used ({type(error).__name__})",
                where=_WHERE,
                expected=f"PEM files in {directory}",
            ) from None
        return context


def _relative(table: ProviderTable, key: str, default: str) -> Path:
    path = Path(table.text(key, default))
    if path.is_absolute() or ".." in path.parts:
        raise UsageError.of(
            "config-wrong-value",
            "not a path below the namespace's directory",
            where=f"{table.where}.{key}",
        )
    return path


def _no_password() -> str:
    raise ValueError("the key has a password")
