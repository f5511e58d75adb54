"""Rancher's account provider: an HTTPS server of the cluster's, with mutual TLS.

``GET /provider`` with the header ``object: SECRET`` answers with ``username``, ``password`` and
``domainName``; each namespace has a provider of its own, whose port is in a file.
"""

from __future__ import annotations

import http
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

from credspec.config_table import PATH, PATH_FORM, Key, NotTakenError, Table, text_of
from credspec.errors import NotPermittedError
from credspec.providers.answers import account_from_json, refuse_answer, refuse_input
from credspec.providers.deadline import Deadline
from credspec.providers.https import HttpsClient
from credspec.providers.private_file import read_private_file
from credspec.providers.provider import HostAccount
from credspec.providers.provider_table import SERVER, ProviderTable, read_table
from credspec.providers.server_url import Server
from credspec.providers.tls import client_context

# Kubernetes' names: of a namespace RFC 1123's label, of a secret its subdomain.
_NAMESPACE: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_SECRET: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*"
)
_MAX_PORT: Final = 65535
_WHERE: Final = "provider rancher"


def _below(text: str) -> Path:
    path = Path(text)
    if path.is_absolute() or ".." in path.parts:
        raise NotTakenError((text, ""), found="not a path below the namespace's directory")
    return path


_BELOW: Final = text_of(_below, "", takes="a text", form=PATH_FORM)


@dataclass(frozen=True, slots=True, kw_only=True)
class RancherSettings(ProviderTable):
    """Settings of `RancherProvider`.

    The server's certificate must be of the authority in `ca_file`, whatever the host trusts.
    """

    table: ClassVar = Table("providers.rancher", "Rancher's account provider.")

    directory: Annotated[
        Path,
        Key(
            kind=PATH,
            meaning="Holds one directory for each namespace, with `port.txt` and the files below.",
            reloaded=True,
        ),
    ] = Path("/var/lib/rancher/gmsa")
    certificate: Annotated[
        Path,
        Key(
            kind=_BELOW,
            meaning="The client's certificate in PEM, below the namespace's directory.",
            reloaded=True,
        ),
    ] = Path("ssl/client/tls.crt")
    key: Annotated[
        Path,
        Key(
            kind=_BELOW,
            meaning="The client's key in PEM, below the namespace's directory.",
            reloaded=True,
        ),
    ] = Path("ssl/client/tls.key")
    ca_file: Annotated[
        Path,
        Key(
            kind=_BELOW,
            meaning="The only authority that may sign the server's certificate, below the "
            "namespace's directory.",
            reloaded=True,
        ),
    ] = Path("ssl/ca/tls.crt")
    url: Annotated[
        tuple[Server, str] | None,
        Key(
            kind=SERVER,
            meaning="The server, in place of the port in `port.txt` on this host.",
            default="`https://localhost`, with the port in `port.txt`",
            reloaded=True,
        ),
    ] = None


class RancherProvider:
    """Its input is ``NAMESPACE:SECRET``."""

    declared: ClassVar = RancherSettings

    def __init__(self, settings: Mapping[str, Any], seconds: float) -> None:
        found = read_table(RancherSettings, settings, "providers.rancher")
        self._directory = found.directory
        self._files = found.certificate, found.key, found.ca_file
        self._server = found.url
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
