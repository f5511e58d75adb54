"""Finds every key of the configuration by asking the code that reads it.

Files with unknown keys and with wrong values are read; what the errors say they expect is what a
table's keys are and what each key takes. Providers' own tables are read with a table that notes
what it is asked for.
"""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from credspec.agent.config import Config, load_config
from credspec.errors import UsageError
from credspec.providers import account_service, program, selection
from credspec.providers.provider_table import ProviderTable

DOMAIN_TABLE = 'domains."contoso.com"'
# In the order of the page. The provider tables follow `providers`.
_TABLES = ("", "host_identity", "ldap", DOMAIN_TABLE, "policy", "credentials_fetcher", "providers")
# Wrong values: of a type that no key takes, then texts and lists that are not what is meant.
_PROBES = ("1979-05-27", '"\\u0001 /"', '["\\u0001 /"]')
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
    """A key: its table as in the file, what it takes, and its default as in the file."""

    table: str
    name: str
    takes: str
    default: str = ""

    @property
    def path(self) -> str:
        """Table and name, as error messages have them."""
        return f"{self.table}.{self.name}" if self.table else self.name


def configuration_keys() -> Iterator[Key]:
    """Yield every key, in the order of the file's tables."""
    unread = set(filter(_is_table, _names_in(""))) - {*_TABLES, "domains", "account_provider"}
    if unread:
        raise ValueError(f"tables that configuration_keys.py does not know: {sorted(unread)}")
    for table in _TABLES:
        for name in _names_in(table):
            if table or not _is_table(name):
                yield Key(
                    table=table,
                    name=name,
                    takes=_taken(table, name),
                    default=_default(table, name),
                )
    yield from _provider_keys()


def _problems(text: str) -> Mapping[str, str]:
    """Return what the reader expects instead, by the key that it complains about."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.toml")
        path.write_text(text, "utf-8")
        try:
            load_config(path)
        except UsageError as error:
            return {p.where.removeprefix(f"{path}: "): p.expected for p in error.problems}
    return {}


def _written(table: str, name: str, value: str) -> str:
    return f"[{table}]\n{name} = {value}\n" if table else f"{name} = {value}\n"


def _names_in(table: str) -> Sequence[str]:
    expected = next(iter(_problems(_written(table, "zzz", "1979-05-27")).values()))
    names = expected.removeprefix("one of ").split(", or ")[0]
    return sorted(names.split(", "))


def _is_table(name: str) -> bool:
    return _problems(f"{name} = 1979-05-27\n").get(name) == "a table"


def _taken(table: str, name: str) -> str:
    where = f"{table}.{name}" if table else name
    texts = [_problems(_written(table, name, probe)).get(where, "") for probe in _PROBES]
    general, *special = dict.fromkeys(text for text in texts if text)
    if general in {"a text", "a list of texts"} and special:
        closer = special[-1]
        return f"a list; each is {closer}" if general == "a list of texts" else closer
    return general


def _default(table: str, name: str) -> str:
    """Return the default as the file would have it; empty if there is no single value."""
    config = Config()
    owner: Any = {
        "policy": config.policy,
        "credentials_fetcher": config.fetcher,
        "providers": config.providers,
    }.get(table, config)
    if table == "credentials_fetcher" and name == "owner":
        return f'"{owner.uid}:{owner.gid}"'
    if table == "credentials_fetcher" and name == "mode":
        return f'"{owner.mode:04o}"'
    return _as_toml(getattr(owner, "uids" if name == "users" else name, None))


def _as_toml(value: object) -> str:
    match value:
        case bool() | int() | float():
            return f"{value:g}"
        case str() | Path():
            return json.dumps(str(value))
        case tuple() | frozenset():
            return json.dumps(sorted(value))
    return ""


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
            default = default if value is None else _as_toml(value)
        self._noted.setdefault(key, Key(table=table, name=key, takes=takes, default=default))
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
    yield Key(table="providers.NAME", name="guid", takes="a class identifier in braces")
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
