from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from credspec.cli.spec_argument import spec_source
from credspec.errors import InvalidSpecError, NotFoundError
from credspec.spec.encoding import MAX_SPEC_BYTES


def test_a_path(tmp_path: Path) -> None:
    (tmp_path / "www.json").write_bytes(b"{}")
    assert spec_source(str(tmp_path / "www.json"), tmp_path / "none")() == b"{}"


@pytest.mark.parametrize("text", ["www", "www.json", "file://www.json"])
def test_a_name_in_the_spec_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir("/")
    (tmp_path / "www.json").write_bytes(b"{}")
    assert spec_source(text, tmp_path)() == b"{}"


def test_a_document() -> None:
    assert spec_source("raw://{}", Path("/none"))() == b"{}"


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x" * 100_000)))
    assert len(spec_source("-", Path("/none"))()) == MAX_SPEC_BYTES + 1


@pytest.mark.parametrize("text", ["www.json", "../www.json", "/none/www.json", "a\0b", "x" * 5000])
def test_what_is_not_there(tmp_path: Path, text: str) -> None:
    with pytest.raises(NotFoundError, match="spec-not-found"):
        spec_source(text, tmp_path)()


@pytest.mark.parametrize(
    ("text", "meant"),
    [("WWW", "www.json"), ("WWW.JSON", "www.json"), ("Sub\\A.json", "sub/a.json")],
)
def test_a_name_that_is_nearly_one_of_the_spec_directory(
    tmp_path: Path, text: str, meant: str
) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("www.json", "sub/a.json"):
        (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(NotFoundError) as caught:
        spec_source(text, tmp_path)()
    assert f"did you mean file://{meant}?" in str(caught.value)


@pytest.mark.parametrize("text", ["nonsense://x", "registry://x", "file://"])
def test_references_that_are_none(text: str) -> None:
    with pytest.raises(InvalidSpecError):
        spec_source(text, Path("/none"))


def test_a_reference_stays_in_the_directory(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpecError, match="spec-path-outside"):
        spec_source("file://../x", tmp_path)()
