"""A provider's own table in the configuration: the base of its declaration, and how it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, TypeVar

from credspec.config_table import (
    URL_FORM,
    DeclaredKey,
    Key,
    Kind,
    NotTakenError,
    Table,
    keys_of,
    read_keys,
    text_of,
    wrong_value,
)
from credspec.errors import Problem, UsageError
from credspec.providers.server_url import server_url

SERVER: Final = text_of(server_url, "a URL such as https://vault.contoso.com:8200", form=URL_FORM)
"""A server; read are the server and the path of the URL."""

ACCOUNTS_DIRECTORY: Final = Path("/etc/credspec/accounts")

_FOUND: Final = "missing, or of another kind"


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(
        isinstance(text, str) and "\0" not in text for text in value
    ):
        raise NotTakenError((value, TEXTS.takes))
    return tuple(value)


TEXTS: Final = Kind("a list of texts", _texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderTable:
    """What every provider's table may have; it is for the selection of the provider."""

    table: ClassVar[Table]

    guid: Annotated[
        object,
        Key(
            kind=Kind("a class identifier in braces", lambda value: value),
            meaning="The class identifier of the plug-in that this provider replaces. Every "
            "provider's table may have it.",
            default="none: the provider is named as `NAME:INPUT`",
            reloaded=True,
        ),
    ] = None


_T = TypeVar("_T")


def read_table(declared: type[_T], values: Mapping[str, Any], name: str) -> _T:
    """Return what a table holds; ``guid`` is left alone. `name` is the table's in the file.

    Raises:
        UsageError: with every problem: `config-wrong-value`, `config-unknown-key`.
    """
    where = f"configuration: {name}"
    given = {key: value for key, value in values.items() if key != "guid"}
    keys = _keys_with(keys_of(declared), given)

    def unknown(key: str, _: object) -> Problem:
        return Problem(code="config-unknown-key", found="unknown key", where=f"{where}.{key}")

    found, problems = read_keys(keys, given, f"{where}.", found=lambda _: _FOUND, unknown=unknown)
    for key, declaration in keys.items():
        if declaration.is_required and key not in given:
            expected = _expected_in_place_of_nothing(declaration)
            problems.append(wrong_value(f"{where}.{key}", _FOUND, expected))
    if problems:
        raise UsageError(*problems)
    return declared(**found)


def _keys_with(keys: Mapping[str, DeclaredKey], given: Mapping[str, Any]) -> dict[str, DeclaredKey]:
    """Return the keys of a table that go with the values of the others."""
    found = {}
    for name, declared in keys.items():
        if declared.key.only_with is not None:
            other, value = declared.key.only_with
            if given.get(other, keys[other].default) != value:
                continue
        found[name] = declared
    return found


def _expected_in_place_of_nothing(declared: DeclaredKey) -> str:
    try:
        declared.key.kind.read(None)
    except NotTakenError as error:
        return error.wrong[0][1]
    return declared.key.kind.takes
