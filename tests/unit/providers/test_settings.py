"""The names that the configuration of providers may hold; values are tested in test_selection."""

from __future__ import annotations

from typing import Any

import pytest

from credspec.providers.settings import ProviderSettings, provider_settings

WRONG = ["", "Vault", "vault ", "vault\n", "vault/x", "../vault", "1vault", "-vault", "v" * 33, "é"]


@pytest.mark.parametrize("name", ["vault", "azure-key-vault", "v", "v2", "v" * 32])
def test_names_of_providers(name: str) -> None:
    found = provider_settings({"enabled": [name, "file", name], name: {"a": 1}}, "c")
    assert isinstance(found, ProviderSettings)
    assert found.enabled == tuple(dict.fromkeys((name, "file")))
    assert dict(found.tables) == {name: {"a": 1}}


@pytest.mark.parametrize("name", [*WRONG, 1, None, True, ["vault"]])
def test_what_is_no_name_is_not_enabled(name: Any) -> None:
    """It would become part of log lines, and of what is imported."""
    for enabled in ([name], ["file", name]):
        found = provider_settings({"enabled": enabled}, "c")
        assert isinstance(found, list)
        assert [problem.where for problem in found] == ["c: providers.enabled"]


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_name_has_no_table(name: str) -> None:
    assert isinstance(provider_settings({name: {"a": 1}}, "c"), list)


@pytest.mark.parametrize("table", ["x", 1, [], [{}], None])
def test_a_table_is_a_table(table: Any) -> None:
    found = provider_settings({"vault": table}, "c")
    assert isinstance(found, list)
    assert [problem.where for problem in found] == ["c: providers.vault"]
