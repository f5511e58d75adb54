"""Azure Key Vault, with a managed identity of the host."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

from credspec.config_table import PATH, Key, Kind, NotTakenError, Table
from credspec.errors import NotPermittedError, UnreachableError
from credspec.providers.answers import account_from_line, refuse_answer, refuse_input
from credspec.providers.deadline import Deadline
from credspec.providers.extras import import_extra
from credspec.providers.https import HttpsClient
from credspec.providers.library_transport import requests_session
from credspec.providers.provider import HostAccount
from credspec.providers.provider_table import TEXTS, ProviderTable, read_table
from credspec.providers.server_url import Server
from credspec.providers.tls import client_context, read_authorities

# Where the host's token may be sent: the clouds' own names.
_HOSTS: Final = (".vault.azure.net", ".vault.azure.cn", ".vault.usgovcloudapi.net")
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_ALLOWED: Final = re.compile(rf"\.?{_LABEL}(?:\.{_LABEL}){{1,10}}")
# All of a URL that is taken: a vault's name, the rest of the host, a secret, perhaps its version.
_SECRET_URI: Final = re.compile(
    r"https://([A-Za-z0-9-]{3,24})((?:\.[A-Za-z0-9-]{1,63}){1,10})"
    r"/secrets/([0-9A-Za-z-]{1,127})(?:/([0-9A-Za-z]{1,64}))?/?"
)
_ID: Final = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_WHERE: Final = "provider azure-key-vault"


def _hosts(value: Any) -> tuple[str, ...]:
    hosts = tuple(host.lower() for host in TEXTS.read(value))
    if not all(map(_ALLOWED.fullmatch, hosts)):
        raise NotTakenError((value, "names of vaults, or .vault.azure.net for all that end so"))
    return hosts


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureKeyVaultSettings(ProviderTable):
    """Settings of `AzureKeyVaultProvider`."""

    table: ClassVar = Table(
        "providers.azure-key-vault", "Azure Key Vault; needs the extra `azure`."
    )

    hosts: Annotated[
        tuple[str, ...],
        Key(
            kind=Kind(TEXTS.takes, _hosts),
            meaning="Where this host's token may be sent: `.vault.azure.net` stands for every "
            "vault there, a name without a leading dot for one host.",
            reloaded=True,
        ),
    ] = _HOSTS
    ca_file: Annotated[
        Path | None,
        Key(
            kind=PATH,
            meaning="The only authorities, in PEM, that may sign the vault's certificate.",
            default="the host's authorities",
            reloaded=True,
        ),
    ] = None


class AzureKeyVaultProvider:
    r"""Its input is ``ObjectId=ID;SecretUri=URL``; the secret is ``DOMAIN\user:password``.

    The host's token is sent to the `hosts` of its settings only: a name that begins with a dot,
    such as ``.vault.azure.net``, stands for ``NAME.vault.azure.net``, any other for itself.
    """

    declared: ClassVar = AzureKeyVaultSettings

    def __init__(self, settings: Mapping[str, Any], seconds: float) -> None:
        found = read_table(AzureKeyVaultSettings, settings, "providers.azure-key-vault")
        self._hosts = found.hosts
        self._ca_file = found.ca_file
        self._seconds = seconds

    def host_account(self, plugin_input: str) -> HostAccount:
        """Read a secret.

        Raises:
            UsageError: `host-account-input`, `host-account-extra`.
            NotPermittedError: `host-account-not-given`, `host-account-tls`.
            UnreachableError: `host-account-unreachable`, `host-account-timeout`.
            CredspecError: `host-account-answer`, `host-account-invalid`.
        """
        object_id, host, name, version = self._parts(plugin_input)
        identity = import_extra("azure.identity", "azure")
        secrets = import_extra("azure.keyvault.secrets", "azure")
        exceptions = import_extra("azure.core.exceptions", "azure")
        transport = import_extra("azure.core.pipeline.transport", "azure").RequestsTransport
        deadline = Deadline(self._seconds)
        trusted = None if self._ca_file is None else read_authorities(self._ca_file, _WHERE)
        asked = HttpsClient(Server(host), client_context(_WHERE, trusted), deadline, _WHERE)
        # One of each for each question: they are not shared between threads.
        credential = identity.ManagedIdentityCredential(
            identity_config={"object_id": object_id},
            transport=transport(use_env_settings=False),
            connection_timeout=deadline.seconds / 3,
            read_timeout=deadline.seconds / 3,
            retry_total=1,
        )
        client = secrets.SecretClient(
            f"https://{host}",
            _TokenOfVaults(credential, host),
            transport=transport(session=requests_session(asked)),
            retry_total=0,  # a server may say after how long
            permit_redirects=False,
        )
        try:
            with credential, client:
                text = client.get_secret(name, version).value
        except (exceptions.ResourceNotFoundError, exceptions.ClientAuthenticationError) as error:
            raise NotPermittedError.of(
                "host-account-not-given", type(error).__name__, where=_WHERE
            ) from None
        except exceptions.HttpResponseError as error:
            status = error.status_code or 0
            kind = NotPermittedError if status == 403 else UnreachableError  # noqa: PLR2004
            raise kind.of("host-account-not-given", f"HTTP {status}", where=_WHERE) from None
        except (exceptions.AzureError, ValueError) as error:
            raise UnreachableError.of(
                "host-account-unreachable", type(error).__name__, where=_WHERE
            ) from None
        if not isinstance(text, str):
            refuse_answer(_WHERE, "a secret without text")
        return account_from_line(text, _WHERE)

    def share_of(self, plugin_input: str) -> str:
        """Return the vault's host."""
        return self._parts(plugin_input)[1]

    def _parts(self, given: str) -> tuple[str, str, str, str | None]:
        """Return object id, host, secret and version: nothing else of an input is used."""
        pairs = [part.partition("=") for part in given.split(";") if part.strip()]
        values = {key.strip().lower(): value.strip() for key, _, value in pairs}
        match = _SECRET_URI.fullmatch(values.get("secreturi", ""))
        object_id = values.get("objectid", "")
        if len(pairs) != len(values) or len(values) != len({"objectid", "secreturi"}):
            match = None
        if match is None or not _ID.fullmatch(object_id):
            refuse_input(_WHERE, "ObjectId=ID;SecretUri=https://NAME.vault.azure.net/secrets/...")
        end = match[2].lower()
        host = match[1].lower() + end
        if end not in self._hosts and host not in self._hosts:
            raise NotPermittedError.of(
                "host-account-not-given",
                f"{host} is not a vault that this host's token may be sent to",
                where=_WHERE,
                expected=" or ".join(
                    f"NAME{each}" if each.startswith(".") else each for each in self._hosts
                ),
                remedy="add it to hosts under [providers.azure-key-vault] in the configuration",
            )
        return object_id, host, match[3], match[4]


class _TokenOfVaults:
    """The host's identity, but only for vaults: what a server asks for does not decide."""

    def __init__(self, credential: Any, host: str) -> None:
        self._credential = credential
        self._scope = f"https://{host.partition('.')[2]}/.default"

    def get_token(self, *scopes: str, **options: Any) -> Any:
        if scopes != (self._scope,):
            refuse_answer(_WHERE, "it asks for a token that is not for vaults")
        return self._credential.get_token(*scopes, **options)
