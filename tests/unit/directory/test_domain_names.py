"""Names of domains as they stand in a directory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.directory.domain_names import is_netbios_name, naming_context_to_dns

labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)


@given(st.lists(labels, min_size=1, max_size=6), st.sampled_from(["DC", "dc", "Dc"]))
def test_a_naming_context_names_the_domain(parts: list[str], key: str) -> None:
    context = ",".join(f"{key}={part.upper()}" for part in parts)
    assert naming_context_to_dns(context) == ".".join(parts)


@pytest.mark.parametrize(
    "context",
    [
        "",
        "DC=",
        "CN=Configuration,DC=a,DC=test",
        "DC=a,CN=b,DC=test",
        "DC=a.test",
        "DC=a,,DC=test",
        r"DC=a\,DC=b,DC=test",
        r"DC=a\2eb,DC=test",
        "DC=a+CN=b,DC=test",
        "DC=..,DC=test",
        "DC=a/b,DC=test",
        "DC=a\n,DC=test",
        "DC=a\0b,DC=test",
        "OU=x",
        "a.test",
    ],
)
def test_what_is_not_a_domain_has_no_name(context: str) -> None:
    assert naming_context_to_dns(context) is None


@given(st.text(max_size=40))
def test_any_text_has_a_safe_name_or_none(context: str) -> None:
    name = naming_context_to_dns(context)
    assert name is None or set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-_")


@pytest.mark.parametrize("name", ["CONTOSO", "a-b_c", "X" * 15, "WÄHRUNG", "!#$%&'()^{}~"])
def test_netbios_names(name: str) -> None:
    assert is_netbios_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "X" * 16, "a.b", "example.test", "a b", "a\\b", "a/b", "a@b", "a:b", "a\n", "\x9f", "a\0"],
)
def test_what_is_not_a_netbios_name(name: str) -> None:
    assert not is_netbios_name(name)
