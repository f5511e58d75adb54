"""HashiCorp Vault and OpenBao: a secret of a key-value engine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

from credspec.config_table import PATH, TEXT, Key, Table, choice
from credspec.errors import NotPermittedError, UnreachableError
from credspec.providers.answers import account_from_json, refuse_answer, refuse_input
from credspec.providers.deadline import Deadline
from credspec.providers.extras import import_extra
from credspec.providers.https import HttpsClient
from credspec.providers.library_transport import requests_session
from credspec.providers.private_file import read_private_file
from credspec.providers.provider import HostAccount
from credspec.providers.provider_table import SERVER, ProviderTable, read_table
from credspec.providers.server_url import Server
from credspec.providers.tls import client_context, read_authorities

if TYPE_CHECKING:
    import hvac

_PATH: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*){0,15}")
_WHERE: Final = "provider vault"


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultSettings(ProviderTable):
    """Settings of `VaultProvider`."""

    table: ClassVar = Table(
        "providers.vault", "HashiCorp Vault and OpenBao; needs the extra `vault`."
    )

    url: Annotated[
        tuple[Server, str],
        Key(
            kind=SERVER,
            meaning="Address of the server.",
            reloaded=True,
        ),
    ]
    ca_file: Annotated[
        Path | None,
        Key(
            kind=PATH,
            meaning="The only authorities, in PEM, that may sign the server's certificate.",
            default="the host's authorities",
            reloaded=True,
        ),
    ] = None
    namespace: Annotated[
        str | None,
        Key(
            kind=TEXT,
            meaning="Vault's namespace.",
            default="none",
            reloaded=True,
        ),
    ] = None
    mount: Annotated[
        str,
        Key(
            kind=TEXT,
            meaning="Where the key-value engine is mounted.",
            reloaded=True,
        ),
    ] = "secret"
    kv: Annotated[
        str,
        Key(
            kind=choice("2", "1", quoted=False),
            meaning="Version of the key-value engine.",
            reloaded=True,
        ),
    ] = "2"
    prefix: Annotated[
        str,
        Key(
            kind=TEXT,
            meaning="Secrets outside this path are refused.",
            reloaded=True,
        ),
    ] = "/"
    auth: Annotated[
        str,
        Key(
            kind=choice("token", "approle", "cert", quoted=False),
            meaning="How this host logs on to Vault.",
            reloaded=True,
        ),
    ] = "token"
    token_file: Annotated[
        Path,
        Key(
            kind=PATH,
            meaning='With `auth = "token"`: the file with the token.',
            only_with=("auth", "token"),
            reloaded=True,
        ),
    ] = Path()
    role_id: Annotated[
        str,
        Key(
            kind=TEXT,
            secret=True,
            meaning='With `auth = "approle"`: the role.',
            only_with=("auth", "approle"),
            reloaded=True,
        ),
    ] = ""
    secret_id_file: Annotated[
        Path,
        Key(
            kind=PATH,
            meaning='With `auth = "approle"`: the file with the secret id.',
            only_with=("auth", "approle"),
            reloaded=True,
        ),
    ] = Path()
    certificate: Annotated[
        Path,
        Key(
            kind=PATH,
            meaning='With `auth = "cert"`: the client\'s certificate, in PEM.',
            only_with=("auth", "cert"),
            reloaded=True,
        ),
    ] = Path()
    key: Annotated[
        Path,
        Key(
            kind=PATH,
            meaning='With `auth = "cert"`: the client\'s key, in PEM, without a password.',
            only_with=("auth", "cert"),
            reloaded=True,
        ),
    ] = Path()


class VaultProvider:
    """Its input is the path of a secret with ``username``, ``password`` and ``domainName``.

    Only root may read the files of its settings, which are read for each request.
    """

    declared: ClassVar = VaultSettings

    def __init__(self, settings: Mapping[str, Any], seconds: float) -> None:
        found = read_table(VaultSettings, settings, "providers.vault")
        self._server = found.url
        self._ca_file = found.ca_file
        self._namespace = found.namespace
        self._mount = found.mount
        self._version = found.kv
        self._prefix = found.prefix.strip("/")
        self._auth = found.auth
        self._role = found.role_id
        is_token = found.auth == "token"
        self._secret_file = found.token_file if is_token else found.secret_id_file
        self._pair = (found.certificate, found.key) if found.auth == "cert" else None
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
