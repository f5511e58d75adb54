"""Azure Key Vault, with a managed identity of the host."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from credspec.errors import NotPermittedError, UnreachableError
from credspec.providers.answers import account_from_line, refuse_answer, refuse_input
from credspec.providers.extras import import_extra
from credspec.providers.host_account import HostAccount
from credspec.providers.provider_table import ProviderTable

# Where the host's token may be sent: the clouds' own names.
_HOSTS: Final = (".vault.azure.net", ".vault.azure.cn", ".vault.usgovcloudapi.net")
_PATH: Final = re.compile(r"/secrets/([0-9A-Za-z-]{1,127})(?:/([0-9A-Za-z]{1,64}))?/?")
_ID: Final = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_WHERE: Final = "provider azure-key-vault"


class AzureKeyVaultProvider:
    r"""Its input is ``ObjectId=ID;SecretUri=URL``; the secret is ``DOMAIN\user:password``.

    Settings: `hosts`, how the names of vaults end, default those of Azure's clouds; `ca_file`.
    """

    def __init__(self, settings: Mapping[str, Any], seconds: float) -> None:
        table = ProviderTable("azure-key-vault", settings)
        self._hosts = table.texts("hosts", _HOSTS)
        self._ca_file = table.optional_path("ca_file")
        table.close()
        self._seconds = seconds

    def host_account(self, plugin_input: str) -> HostAccount:
        """Read a secret.

        Raises:
            UsageError: `host-account-input`, `host-account-extra`.
            NotPermittedError: `host-account-not-given`.
            UnreachableError: `host-account-unreachable`.
            CredspecError: `host-account-answer`, `host-account-invalid`.
        """
        object_id, vault, name, version = self._parts(plugin_input)
        identity = import_extra("azure.identity", "azure")
        secrets = import_extra("azure.keyvault.secrets", "azure")
        exceptions = import_extra("azure.core.exceptions", "azure")
        options: dict[str, Any] = {
            "connection_timeout": self._seconds / 3,
            "read_timeout": self._seconds / 3,
            "retry_total": 1,
            "permit_redirects": False,
        }
        if self._ca_file is not None:
            options["connection_verify"] = str(self._ca_file)
        # One of each for each question: they are not shared between threads.
        credential = identity.ManagedIdentityCredential(
            identity_config={"object_id": object_id}, retry_total=1
        )
        client = secrets.SecretClient(vault, credential, **options)
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

    def _parts(self, given: str) -> tuple[str, str, str, str | None]:
        pairs = [part.partition("=") for part in given.split(";") if part.strip()]
        values = {key.strip().lower(): value.strip() for key, _, value in pairs}
        url = urlsplit(values.get("secreturi", ""))
        match = _PATH.fullmatch(url.path)
        object_id = values.get("objectid", "")
        if (
            len(pairs) != len({"objectid", "secreturi"})
            or url.scheme != "https"
            or url.username is not None
            or match is None
            or not _ID.fullmatch(object_id)
        ):
            refuse_input(_WHERE, "ObjectId=ID;SecretUri=https://NAME.vault.azure.net/secrets/...")
        if not (url.hostname or "").endswith(self._hosts):
            raise NotPermittedError.of(
                "host-account-not-given",
                f"{url.hostname} is not a vault that this host's token may be sent to",
                where=_WHERE,
                expected=" or ".join(f"NAME{end}" for end in self._hosts),
            )
        return object_id, f"https://{url.netloc}", match[1], match[2]
