"""The `[providers]` table of the configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final

from credspec.config_table import (
    Key,
    Kind,
    NotTakenError,
    Table,
    keys_of,
    number,
    read_keys,
    wrong_value,
)
from credspec.errors import Problem
from credspec.providers.account_domains import ACCOUNT_DOMAINS, AccountDomains

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")


def _enabled(value: Any) -> tuple[str, ...]:
    if isinstance(value, list) and all(
        isinstance(name, str) and _NAME.fullmatch(name) for name in value
    ):
        return tuple(dict.fromkeys(value))
    raise NotTakenError((value, _NAMES.takes))


_NAMES: Final = Kind('a list of names of providers, such as "vault"', _enabled)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """Which providers may be used, and how.

    `enabled` are their names; ``inline`` allows an account in the spec itself. What a provider gave
    is kept for `secret_seconds`, 0 for one logon only; it must answer within `deadline_seconds`.
    `domains` says to which domains a password may go. `tables` are the providers' own settings by
    name.
    """

    table: ClassVar = Table(
        "providers",
        "Where hosts that are not joined get their account from ([providers](providers.md)).",
    )

    enabled: Annotated[
        tuple[str, ...],
        Key(
            kind=_NAMES,
            meaning="Providers that may be used; `inline` allows accounts in specs. Others are "
            "refused.",
            reloaded=True,
        ),
    ] = ()
    secret_seconds: Annotated[
        float,
        Key(
            kind=number(0, 86400, what="a number of seconds"),
            meaning="How long a password is kept in memory, in seconds; 0 keeps it for one logon.",
            reloaded=True,
        ),
    ] = 300
    deadline_seconds: Annotated[
        float,
        Key(
            kind=number(1, 25, what="a number of seconds"),
            meaning="How long a provider may take for its whole answer, in seconds.",
            reloaded=True,
        ),
    ] = 10
    domains: Annotated[
        AccountDomains,
        Key(
            kind=ACCOUNT_DOMAINS,
            meaning="The domains that passwords may be sent to, by NetBIOS name "
            "([details](providers.md#where-a-password-may-go)).",
            default="the domain that a secret names by its DNS name",
            reloaded=True,
        ),
    ] = field(default_factory=AccountDomains)
    tables: Mapping[str, Mapping[str, Any]] = field(
        default_factory=lambda: MappingProxyType({}), repr=False
    )


def provider_settings(content: Mapping[str, Any], where: str) -> ProviderSettings | list[Problem]:
    """Read the table; return its problems if there are any."""
    keys = keys_of(ProviderSettings)
    tables: dict[str, Mapping[str, Any]] = {}

    def table_of_provider(name: str, value: object) -> Problem | None:
        if isinstance(value, dict) and _NAME.fullmatch(name):
            tables[name] = value
            return None
        expected = f"{', '.join(keys)}, or a table of a provider's own"
        return wrong_value(f"{where}: providers.{name}", _found(value), expected)

    values, problems = read_keys(
        keys, content, f"{where}: providers.", found=_found, unknown=table_of_provider
    )
    return problems or ProviderSettings(**values, tables=MappingProxyType(tables))


def _found(value: object) -> str:
    """Return what a wrong value is called: it may be a secret."""
    return f"a value of type {type(value).__name__}"
