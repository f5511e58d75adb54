"""Accounts in files of this host: ``file``, ``keytab`` and systemd's credentials."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from credspec.config_table import PATH, Key, Table
from credspec.errors import NotPermittedError
from credspec.providers.answers import account_from_json, refuse_input
from credspec.providers.private_file import FILE_NAME, read_private_file
from credspec.providers.provider import HostAccount
from credspec.providers.provider_table import ACCOUNTS_DIRECTORY, ProviderTable, read_table


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSettings(ProviderTable):
    """Settings of `FileProvider`."""

    table: ClassVar = Table("providers.file", "JSON files on this host.")

    directory: Annotated[
        Path,
        Key(
            kind=PATH,
            meaning="Holds one JSON file for each account. Only root may write or read it.",
            reloaded=True,
        ),
    ] = ACCOUNTS_DIRECTORY


class FileProvider:
    """``file:NAME``: a JSON file with ``username``, ``password`` and ``domainName``."""

    declared: ClassVar = FileSettings

    def __init__(self, settings: Mapping[str, Any], seconds: float) -> None:
        del seconds
        self._directory = read_table(FileSettings, settings, "providers.file").directory

    def host_account(self, plugin_input: str) -> HostAccount:
        """Return the account in a file; raises as `read_private_file` and `account_from_json`."""
        where = "provider file"
        path = _contained(self._directory, plugin_input, where)
        return account_from_json(read_private_file(path, where), where)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeytabSettings(ProviderTable):
    """Settings of `KeytabProvider`."""

    table: ClassVar = Table("providers.keytab", "Keytabs on this host.")

    directory: Annotated[
        Path,
        Key(
            kind=PATH,
            meaning="Holds one keytab for each account. Only root may write or read it.",
            reloaded=True,
        ),
    ] = ACCOUNTS_DIRECTORY


class KeytabProvider:
    """``keytab:NAME``: a keytab; its first principal is the account."""

    declared: ClassVar = KeytabSettings

    def __init__(self, settings: Mapping[str, Any], seconds: float) -> None:
        del seconds
        self._directory = read_table(KeytabSettings, settings, "providers.keytab").directory

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
        read_table(ProviderTable, settings, "providers.systemd")

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
