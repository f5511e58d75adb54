"""``GMSACredentialSpec`` objects: their names, and the YAML that is read and written."""

from __future__ import annotations

import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from credspec.errors import InvalidSpecError, UsageError
from credspec.spec.kubernetes import from_kubernetes_yaml, object_name, valid_object_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("contoso_WebApp01", "contoso-webapp01"),
        ("WebApp01$", "webapp01"),
        ("a..b.-c-.", "a.b.c"),
        ("Größe 1", "gr-e-1"),
        ("x" * 300, "x" * 253),
    ],
)
def test_names_are_made_of_file_names(text: str, name: str) -> None:
    assert object_name(text) == name


@given(st.text(max_size=300))
def test_a_made_name_is_valid_or_refused(text: str) -> None:
    try:
        name = object_name(text)
    except UsageError as error:
        assert error.code == "kubernetes-name-invalid"
        return
    assert valid_object_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a..b", "a_b", "a\n", "a" * 254, "日本"])
def test_names_that_kubernetes_refuses(name: str) -> None:
    with pytest.raises(UsageError, match="kubernetes-name-invalid"):
        valid_object_name(name)


SCALARS = [
    *("yes", "no", "on", "off", "y", "n", "null", "~", "True", "FALSE", "0o17", "0x1F", "1_000"),
    *("01e3", ".5", "+1", "2026-01-01", "12:30:45", "=", "<<", "-", "? a", "# b", "a: b"),
    *(
        "\u2028",
        "\x85",
        "\ufeff",
        " a ",
        "a\nb",
        "a\r\nb",
        "'",
        '"',
        "\\",
        "%",
        "@",
        "`",
        "é",
        "💾",
    ),
]


@pytest.mark.parametrize("text", SCALARS)
def test_a_text_stays_a_text(text: str) -> None:
    written = yaml.dump({"a": text})
    assert from_kubernetes_yaml(written) == {"a": text}


@pytest.mark.parametrize(
    ("text", "place"),
    [("a: 1\nb: [\n", "line 3 column 1"), ("a: 1\nb: &x 2\n", "line 2 column 4")],
)
def test_an_error_says_where(text: str, place: str) -> None:
    with pytest.raises(InvalidSpecError, match=re.escape(place)):
        from_kubernetes_yaml(text)
