"""The `[providers]` table of the configuration."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from credspec.errors import Problem
from credspec.providers.account_domains import AccountDomains, account_domains

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """Which providers may be used, and how.

    `enabled` are their names; ``inline`` allows an account in the spec itself. What a provider gave
    is kept for `secret_seconds`, 0 for one logon only; it must answer within `deadline_seconds`.
    `domains` says to which domains a password may go. `tables` are the providers' own settings by
    name.
    """

    enabled: tuple[str, ...] = ()
    secret_seconds: float = 300
    deadline_seconds: float = 10
    domains: AccountDomains = field(default_factory=AccountDomains)
    tables: Mapping[str, Mapping[str, Any]] = field(
        default_factory=lambda: MappingProxyType({}), repr=False
    )


def provider_settings(content: Mapping[str, Any], where: str) -> ProviderSettings | list[Problem]:
    """Read the table; return its problems if there are any."""
    problems: list[Problem] = []
    values: dict[str, Any] = {}
    tables: dict[str, Mapping[str, Any]] = {}
    for key, value in content.items():
        place = f"{where}: providers.{key}"
        if key in _READERS:
            found = _READERS[key](value, place)
            if isinstance(found, Problem):
                problems.append(found)
            values[key] = found
        elif isinstance(value, dict) and _NAME.fullmatch(key):
            tables[key] = value
        else:
            expected = f"{', '.join(_READERS)}, or a table of a provider's own"
            problems.append(_wrong(value, place, expected))
    return problems or ProviderSettings(**values, tables=MappingProxyType(tables))


def _enabled(value: Any, where: str) -> tuple[str, ...] | Problem:
    if isinstance(value, list) and all(
        isinstance(name, str) and _NAME.fullmatch(name) for name in value
    ):
        return tuple(dict.fromkeys(value))
    return _wrong(value, where, 'a list of names of providers, such as "vault"')


def _seconds(least: float, most: float) -> Callable[[Any, str], float | Problem]:
    def read(value: Any, where: str) -> float | Problem:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and least <= value <= most:
            return float(value)
        return _wrong(value, where, f"a number of seconds from {least} to {most}")

    return read


def _wrong(value: Any, where: str, expected: str) -> Problem:
    return Problem(
        code="config-wrong-value",
        found=f"a value of type {type(value).__name__}",
        where=where,
        expected=expected,
    )


_READERS: Final[Mapping[str, Callable[[Any, str], Any]]] = {
    "enabled": _enabled,
    "secret_seconds": _seconds(0, 86400),
    "deadline_seconds": _seconds(1, 25),
    "domains": account_domains,
}
