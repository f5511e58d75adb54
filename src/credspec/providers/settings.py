"""The `[providers]` table of the configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from credspec.errors import Problem
from credspec.providers.account_domains import AccountDomains, account_domains

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_SECONDS: Final = {"secret_seconds": (0, 86400), "deadline_seconds": (1, 25)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """Which providers may be used, and how.

    `enabled` are their names; ``inline`` allows an account in the spec itself. What a provider gave
    is kept for `secret_seconds`, 0 for one logon only; it must answer within `deadline_seconds`.
    `domains` says to which domains a password may go. `tables` are the providers' own settings by name.
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
        expected = ""
        if key == "enabled":
            if isinstance(value, list) and all(
                isinstance(name, str) and _NAME.fullmatch(name) for name in value
            ):
                values[key] = tuple(dict.fromkeys(value))
            else:
                expected = 'a list of names of providers, such as "vault"'
        elif key in _SECONDS:
            least, most = _SECONDS[key]
            if isinstance(value, int | float) and not isinstance(value, bool):
                values[key] = value
            if not least <= values.get(key, -1) <= most:
                expected = f"a number of seconds from {least} to {most}"
        elif key == "domains":
            domains = account_domains(value, f"{where}: providers.{key}")
            if isinstance(domains, Problem):
                problems.append(domains)
            else:
                values[key] = domains
        elif isinstance(value, dict) and _NAME.fullmatch(key):
            tables[key] = value
        else:
            expected = (
                "enabled, secret_seconds, deadline_seconds, domains, or a table of a provider's own"
            )
        if expected:
            problems.append(
                Problem(
                    code="config-wrong-value",
                    found=f"a value of type {type(value).__name__}",
                    where=f"{where}: providers.{key}",
                    expected=expected,
                )
            )
    return problems or ProviderSettings(**values, tables=MappingProxyType(tables))
