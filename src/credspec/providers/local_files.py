"""Accounts in files of this host: ``file``, ``keytab`` and systemd's credentials."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from credspec.errors import NotPermittedError
from credspec.providers.answers import account_from_json, refuse_input
from credspec.providers.private_file import FILE_NAME, read_private_file
from credspec.providers.provider import HostAccount
from credspec.providers.provider_table import ProviderTable

_DIRECTORY: Final = "/etc/credspec/accounts"


class FileProvider:
    """``file:NAME``: a JSON file with ``username``, ``password`` and ``domainName``.

    Settings: `directory`, by default ``/etc/credspec/accounts``.
    """

    def __init__(self, settings: Mapping[str, Any], seconds: float) -> None:
        del seconds
        table = ProviderTable("file", settings)
        self._directory = table.path("directory", _DIRECTORY)
        table.close()

    def host_account(self, plugin_input: str) -> HostAccount:
        """Return the account in a file; raises as `read_private_file` and `account_from_json`."""
        where = "provider file"
        path = _contained(self._directory, plugin_input, where)
        return account_from_json(read_private_file(path, where), where)


class KeytabProvider:
    """``keytab:NAME``: a keytab; its first principal is the account. Settings as `FileProvider`."""

    def __init__(self, settings: Mapping[str, Any], seconds: float) -> None:
        del seconds
        table = ProviderTable("keytab", settings)
        self._directory = table.path("directory", _DIRECTORY)
        table.close()

    def host_account(self, plugin_input: str) -> HostAccount:
        """Return the account of a keytab; raises as `read_private_file`."""
        path = _contained(self._directory, plugin_input, "provider keytab")
        read_private_file(path, "provider keytab")
        return HostAccount("", "", keytab=path)


class SystemdCredentialProvider:
    """``systemd:NAME``: what the unit has by ``LoadCredential=`` or ``LoadCredentialEncrypted=``.

    The content is as with `FileProvider`.
    """

    def __init__(self, settings: Mapping[str, Any], seconds: float) -> None:
        del seconds
        ProviderTable("systemd", settings).close()

    def host_account(self, plugin_input: str) -> HostAccount:
        """Return the account of a credential; raises as `FileProvider.host_account`."""
        where = "provider systemd"
        directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
        if not directory.startswith("/"):
            raise NotPermittedError.of(
                "host-account-no-credentials",
                "systemd gave this service no credentials",
                where=where,
                remedy="add LoadCredential=NAME:PATH to the unit (systemctl edit credspec-agent)",
            )
        path = _contained(Path(directory), plugin_input, where)
        return account_from_json(read_private_file(path, where), where)


def _contained(directory: Path, given: str, where: str) -> Path:
    """Return the path that an input names: a name, or an absolute path just below `directory`."""
    name = given.removeprefix(f"{directory}/")
    if not FILE_NAME.fullmatch(name):
        refuse_input(where, f"the name of a file in {directory}")
    return directory / name
