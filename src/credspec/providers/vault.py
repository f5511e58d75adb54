"""HashiCorp Vault and OpenBao: a secret of a key-value engine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from credspec.errors import NotPermittedError, UnreachableError
from credspec.providers.answers import account_from_json, refuse_answer, refuse_input
from credspec.providers.deadline import Deadline
from credspec.providers.extras import import_extra
from credspec.providers.host_account import HostAccount
from credspec.providers.https import HttpsClient
from credspec.providers.library_transport import requests_session
from credspec.providers.private_file import read_private_file
from credspec.providers.provider_table import ProviderTable
from credspec.providers.tls import client_context, read_authorities

if TYPE_CHECKING:
    import hvac

_PATH: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*){0,15}")
_WHERE: Final = "provider vault"


class VaultProvider:
    """Its input is the path of a secret with ``username``, ``password`` and ``domainName``.

    Settings: `url`; `ca_file`, default the system's authorities; `namespace`; `mount`, by default
    ``secret``; `kv` is ``2`` or ``1``; `prefix`, below which all secrets must be. `auth` is
    ``token`` with `token_file`, ``approle`` with `role_id` and `secret_id_file`, or ``cert`` with
    `certificate` and `key`; only root may read the files, which are read for each request.
    """

    def __init__(self, settings: Mapping[str, Any], seconds: float) -> None:
        table = ProviderTable("vault", settings)
        self._server = table.server("url")
        self._ca_file = table.optional_path("ca_file")
        self._namespace = table.optional_text("namespace")
        self._mount = table.text("mount", "secret")
        self._version = table.choice("kv", "2", "1")
        self._prefix = table.text("prefix", "/").strip("/")
        self._auth = table.choice("auth", "token", "approle", "cert")
        self._pair: tuple[Path, Path] | None = None
        self._role = ""
        if self._auth == "token":
            self._secret_file = table.path("token_file")
        elif self._auth == "approle":
            self._role = table.text("role_id")
            self._secret_file = table.path("secret_id_file")
        else:
            self._pair = table.path("certificate"), table.path("key")
        table.close()
        self._seconds = seconds

    def host_account(self, plugin_input: str) -> HostAccount:
        """Read a secret.

        Raises:
            UsageError: `host-account-input`, `host-account-extra`.
            NotPermittedError: `host-account-file`, `host-account-not-given`, `host-account-tls`.
            UnreachableError: `host-account-unreachable`, `host-account-timeout`.
            CredspecError: `host-account-answer`, `host-account-invalid`.
        """
        path = plugin_input.strip("/")
        if not _PATH.fullmatch(path) or ".." in path:
            refuse_input(_WHERE, "the path of a secret")
        if self._prefix and not path.startswith(f"{self._prefix}/"):
            raise NotPermittedError.of(
                "host-account-not-given",
                "the secret is not among those of this host",
                where=_WHERE,
                expected=f"{self._prefix}/...",
            )
        import_extra("hvac", "vault")
        import requests
        from hvac import exceptions

        refusals = (
            *(exceptions.Forbidden, exceptions.InvalidPath, exceptions.Unauthorized),
            exceptions.InvalidRequest,  # a role that does not exist
        )
        try:
            answer = self._read(path)
        except refusals as error:
            raise NotPermittedError.of(
                "host-account-not-given",
                f"it refuses the secret, or has none ({type(error).__name__})",
                where=_WHERE,
                remedy="look at the policy of this host's token or role, and at the path",
            ) from None
        except (requests.RequestException, exceptions.VaultError) as error:
            raise UnreachableError.of(
                "host-account-unreachable",
                f"{self._server[0]}: {type(error).__name__}",
                where=_WHERE,
                remedy="see whether it is sealed or overloaded: vault status",
            ) from None
        data = answer.get("data") if isinstance(answer, dict) else None
        if self._version == "2" and isinstance(data, dict):
            data = data.get("data")
        if not isinstance(data, dict):
            refuse_answer(_WHERE, "no secret of the key-value engine")
        import json

        return account_from_json(json.dumps(data), _WHERE)

    def share_of(self, plugin_input: str) -> str:
        """Return the path that a secret is in: the server behind it may be slow independently."""
        return plugin_input.rpartition("/")[0]

    def _read(self, path: str) -> Any:
        client = self._client()
        try:
            return self._read_with(client, path)
        finally:
            client.adapter.close()

    def _read_with(self, client: hvac.Client, path: str) -> Any:
        if self._auth == "approle":
            secret = read_private_file(self._secret_file, _WHERE).decode("ascii", "replace")
            client.auth.approle.login(self._role, secret.strip())
        elif self._auth == "cert":
            client.auth.cert.login()
        if self._version == "1":
            return client.secrets.kv.v1.read_secret(path, mount_point=self._mount)
        return client.secrets.kv.v2.read_secret_version(
            path, mount_point=self._mount, raise_on_deleted_version=True
        )

    def _client(self) -> hvac.Client:
        import hvac

        token = ""
        if self._auth == "token":
            token = read_private_file(self._secret_file, _WHERE).decode("ascii", "replace").strip()
        server, base = self._server
        trusted = None if self._ca_file is None else read_authorities(self._ca_file, _WHERE)
        session = requests_session(
            HttpsClient(
                server,
                client_context(_WHERE, trusted, self._pair),
                Deadline(self._seconds),
                _WHERE,
            )
        )
        return hvac.Client(
            url=f"https://{server}{base}",
            token=token,
            namespace=self._namespace,
            session=session,
            allow_redirects=False,
        )
