"""All that the configuration may hold, as the dataclasses declare it."""

from __future__ import annotations

from typing import Any

from credspec.account_provider.server import AccountServiceSettings
from credspec.config.credentials_fetcher import FetcherConfig
from credspec.config.host import Config, HostIdentityTable, LdapTable
from credspec.config.policy import Policy
from credspec.directory.locator import ControllerPreference
from credspec.providers.program import ProgramSettings
from credspec.providers.selection import declared_by_providers
from credspec.providers.settings import ProviderSettings


def declared_tables() -> tuple[type[Any], ...]:
    """Return what declares the tables, in the order of docs/configuration.md.

    The providers' own tables follow ``providers``.
    """
    return (
        *(Config, HostIdentityTable, LdapTable, ControllerPreference),
        *(Policy, FetcherConfig, ProviderSettings),
        *declared_by_providers(),
        *(ProgramSettings, AccountServiceSettings),
    )
