"""Finds every key of the configuration.

Tables are dataclasses that declare their keys, see `credspec.config_table`. Providers' own tables
are read with a table that notes what it is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

from credspec.account_provider import server as account_service
from credspec.config.credentials_fetcher import FetcherConfig
from credspec.config.host import TABLES, Config, HostIdentityTable, LdapTable
from credspec.config.policy import Policy
from credspec.config_table import as_toml, keys_of
from credspec.directory.locator import ControllerPreference
from credspec.providers import program, selection
from credspec.providers.provider_table import ProviderTable
from credspec.providers.settings import ProviderSettings

# In the order of the page. The provider tables follow `providers`.
DECLARED: tuple[type[Any], ...] = (
    *(Config, HostIdentityTable, LdapTable, ControllerPreference),
    *(Policy, FetcherConfig, ProviderSettings),
)
_TYPES = {
    "text": "a text",
    "optional_text": "a text",
    "path": "an absolute path",
    "optional_path": "an absolute path",
    "server": "a URL such as https://vault.contoso.com:8200",
    "optional_server": "a URL such as https://vault.contoso.com:8200",
    "texts": "a list of texts",
}
REQUIRED = "required"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key: its table as in the file, what it takes, and its default as in the file.

    `meaning` and `default_words` are what the code says of it, if it says something; `reloaded` is
    whether a reload of the agent takes it over.
    """

    table: str
    name: str
    takes: str
    default: str = ""
    meaning: str = ""
    default_words: str = ""
    reloaded: bool = False

    @property
    def path(self) -> str:
        """Table and name, as error messages have them."""
        return f"{self.table}.{self.name}" if self.table else self.name


def configuration_keys() -> Iterator[Key]:
    """Yield every key, in the order of the file's tables."""
    names = {declared.table.name.partition(".")[0] for declared in DECLARED}
    unread = TABLES - names - {"account_provider"}
    if unread:
        raise ValueError(f"tables that configuration_keys.py does not know: {sorted(unread)}")
    for declared in DECLARED:
        for name, found in sorted(keys_of(declared).items()):
            key = found.key
            yield Key(
                table=declared.table.name,
                name=name,
                takes=key.kind.takes,
                default="" if key.default else key.kind.write(found.default),
                meaning=key.meaning,
                default_words=key.default,
                reloaded=key.reloaded,
            )
    yield from _provider_keys()


def table_meanings() -> Mapping[str, str]:
    """Return what the code says of its tables."""
    return {declared.table.name: declared.table.meaning for declared in DECLARED}


class _NotingTable(ProviderTable):
    """Notes each key that it is asked for, and answers what fits if the key is not there."""

    def __init__(self, noted: dict[str, Key], name: str, values: Mapping[str, Any]) -> None:
        super().__init__(name, values)
        self._noted, self._table = noted, f"providers.{name}"

    def __getattribute__(self, attribute: str) -> Any:
        method = super().__getattribute__(attribute)
        if attribute not in _TYPES and attribute != "choice":
            return method
        return partial(self._note, attribute, method)

    def _note(self, attribute: str, method: Callable[..., Any], key: str, *given: Any) -> Any:
        table = "account_provider" if "account_provider" in self.where else self._table
        if attribute == "choice":
            takes, default = " or ".join(f'"{each}"' for each in given), f'"{given[0]}"'
        else:
            value = given[0] if given and given[0] is not None else None
            takes = _TYPES[attribute]
            default = "" if attribute.startswith("optional_") else REQUIRED
            default = default if value is None else as_toml(value)
        found = Key(
            table=table,
            name=key,
            takes=takes,
            default=default,
            reloaded=table != "account_provider",
        )
        self._noted.setdefault(key, found)
        if default == REQUIRED and key not in self._values:
            example = "https://vault.contoso.com" if attribute == "server" else "/etc/x"
            self._values[key] = [] if attribute == "texts" else example
        return method(key, *given)


def _noted(module: Any, read: Callable[[dict[str, Any]], object]) -> Mapping[str, Key]:
    """Return the keys that a reader asks for, whichever of several it is given."""
    noted: dict[str, Key] = {}
    with mock.patch.object(module, "ProviderTable", partial(_NotingTable, noted)):
        read({})
        for key in list(noted.values()):
            if " or " in key.takes:
                for choice in key.takes.split(" or "):
                    read({key.name: choice.strip('"')})
    return noted


def _provider_keys() -> Iterator[Key]:
    for target in selection._BUILT_IN.values():  # noqa: SLF001 - the list is private
        module_name, _, attribute = target.partition(":")
        module = importlib.import_module(module_name)
        make = partial(getattr(module, attribute), seconds=1.0)
        yield from _noted(module, make).values()
    keys = _noted(program, lambda given: program.ProgramProvider("NAME", given, 1.0))
    yield from keys.values()
    yield Key(
        table="providers.NAME", name="guid", takes="a class identifier in braces", reloaded=True
    )
    clients = {"host1.contoso.com": "reader"}
    yield from _noted(
        account_service,
        lambda given: account_service.account_service_settings({"clients": clients, **given}),
    ).values()
    yield Key(
        table="account_provider",
        name="clients",
        takes="a table of secret names by the client's DNS name",
        default=REQUIRED,
    )
