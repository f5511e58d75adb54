"""A table is declared once: what is read, what is refused, and what the page says are the same."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest

from credspec.config.host import TABLES, Config, load_config
from credspec.config_table import (
    PATH,
    TEXT,
    Key,
    NotTakenError,
    Table,
    as_toml,
    choice,
    keys_of,
    number,
    read_keys,
    texts,
)
from credspec.errors import UsageError
from credspec.providers.provider_table import read_table
from credspec.providers.rancher import RancherSettings
from credspec.providers.vault import VaultSettings
from docs_reference.configuration_keys import DECLARED, table_meanings


@dataclass(frozen=True, kw_only=True)
class Base:
    table: ClassVar = Table("base", "A base.")
    inherited: Annotated[str, Key(kind=TEXT, meaning="Of the base.")] = "x"


@dataclass(frozen=True, kw_only=True)
class Sample(Base):
    table: ClassVar = Table("sample", "A sample.")
    path: Annotated[Path, Key(kind=PATH, meaning="A path.")]
    kind: Annotated[str, Key(kind=choice("one", "two"), meaning="One of two.", name="type")] = "one"
    seconds: Annotated[float, Key(kind=number(1, 9), meaning="A number.", reloaded=True)] = 2.0
    computed: int = 3


def test_keys_are_those_of_the_class_itself_by_their_names_in_the_file() -> None:
    keys = keys_of(Sample)
    assert list(keys) == ["path", "type", "seconds"]
    assert (keys["type"].field, keys["type"].default) == ("kind", "one")
    assert [name for name, key in keys.items() if key.key.reloaded] == ["seconds"]
    assert list(keys_of(Base)) == ["inherited"]


def test_every_problem_of_a_table_is_reported_at_once() -> None:
    content = {"path": "relative", "type": 1, "seconds": True, "inherited": "x", "other": 0}
    values, problems = read_keys(keys_of(Sample), content, "file: sample.")
    assert values == {}
    assert [(p.code, p.where, p.found, p.expected) for p in problems] == [
        ("config-wrong-value", "file: sample.path", "'relative'", "an absolute path"),
        ("config-wrong-value", "file: sample.type", "1", "a text"),
        ("config-wrong-value", "file: sample.seconds", "True", "a number from 1 to 9"),
        (
            "config-unknown-key",
            "file: sample.inherited",
            "unknown key",
            "one of path, seconds, type",
        ),
        ("config-unknown-key", "file: sample.other", "unknown key", "one of path, seconds, type"),
    ]


def test_values_are_by_field() -> None:
    content = {"path": "/x", "type": "two", "seconds": 3}
    values, problems = read_keys(keys_of(Sample), content, "")
    assert not problems
    assert Sample(**values) == Sample(path=Path("/x"), kind="two", seconds=3.0)


def test_each_wrong_text_of_a_list_is_named() -> None:
    kind = texts(lambda text: text if text.islower() else None, "a word in lower case")
    assert kind.read(["a", "b"]) == ("a", "b")
    with pytest.raises(NotTakenError) as caught:
        kind.read(["A", "b", "C"])
    assert caught.value.wrong == (("A", "a word in lower case"), ("C", "a word in lower case"))


@pytest.mark.parametrize("value", [True, False, 1.5, 0, 10, "3", None])
def test_whole_numbers(value: Any) -> None:
    with pytest.raises(NotTakenError):
        number(1, 9, make=int).read(value)


def test_every_table_of_the_file_is_declared() -> None:
    declared = {name.partition(".")[0] for name in table_meanings()}
    assert declared - {""} == TABLES
    named = {name for each in DECLARED for name in keys_of(each)}
    own = {field.name for field in fields(Config)}
    tables = {"policy", "fetcher", "providers", "domains", "account_provider"}
    assert own - tables <= named


@pytest.mark.parametrize("declared", DECLARED, ids=lambda each: each.__name__)
def test_a_declared_default_is_what_its_key_takes(declared: type) -> None:
    for name, key in keys_of(declared).items():
        if key.key.default or key.is_required:
            continue
        text = key.key.kind.write(key.default)
        value = tomllib.loads(f"x = {text}")["x"]
        assert key.key.kind.read(value) == key.default, name
        assert text


@pytest.mark.parametrize("declared", DECLARED[:7], ids=lambda each: each.__name__)
def test_a_date_is_taken_by_no_key(tmp_path: Path, declared: Any) -> None:
    """All keys of a table at once: each is reported, with what the page says that it takes."""
    path, table = tmp_path / "config.toml", declared.table.name
    lines = [f"[{table}]"] if table else []
    lines += [f"{name} = 1979-05-27" for name in keys_of(declared)]
    path.write_text("\n".join(lines), "utf-8")
    with pytest.raises(UsageError) as caught:
        load_config(path)
    found = sorted(p.where.removeprefix(f"{path}: ") for p in caught.value.problems)
    prefix = f"{table}." if table else ""
    assert found == sorted(f"{prefix}{name}" for name in keys_of(declared))
    assert {p.code for p in caught.value.problems} == {"config-wrong-value"}


def test_defaults_are_written_as_the_file_has_them() -> None:
    assert [as_toml(each) for each in (300.0, Path("/x"), ("b", "a"), frozenset("ba"))] == [
        *("300", '"/x"', '["b", "a"]', '["a", "b"]')
    ]
    assert as_toml(None) == ""


def test_tables_of_providers_are_checked_whole() -> None:
    wrong = {"url": 1, "auth": "cert", "token_file": "/x", "key": "key", "mounts": "x"}
    with pytest.raises(UsageError) as caught:
        read_table(VaultSettings, wrong | {"guid": 5}, "providers.vault")
    found = sorted((p.code, p.where.rpartition(".")[2], p.expected) for p in caught.value.problems)
    assert found == [
        ("config-unknown-key", "mounts", ""),
        ("config-unknown-key", "token_file", ""),
        ("config-wrong-value", "certificate", "a text"),
        ("config-wrong-value", "key", "an absolute path"),
        ("config-wrong-value", "url", "a text"),
    ]
    assert {p.found for p in caught.value.problems} == {
        *("unknown key", "missing, or of another kind")
    }
    found_settings = read_table(
        VaultSettings, {"url": "https://v.test:1/x", "token_file": "/t"}, "providers.vault"
    )
    assert (found_settings.kv, found_settings.token_file) == ("2", Path("/t"))
    with pytest.raises(UsageError, match="not a path below"):
        read_table(RancherSettings, {"key": "../x"}, "providers.rancher")
