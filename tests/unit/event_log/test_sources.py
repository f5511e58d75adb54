"""Files that grow, are rotated, cut and replaced, and pipes: no line is lost or read twice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.errors import CredspecError
from credspec.event_log.sources import GrowingFile, Pipe


def append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def test_a_file_that_grows(tmp_path: Path) -> None:
    path = tmp_path / "log"
    source = GrowingFile(path)
    assert list(source.new()) == []
    append(path, "one\ntw")
    assert list(source.new()) == ["one"]
    append(path, "o\nthree\n")
    assert list(source.new()) == ["two", "three"]
    assert list(source.new()) == []
    source.close()


def test_what_was_rotated_before_comes_first(tmp_path: Path) -> None:
    (tmp_path / "log.1").write_text("old\n")
    (tmp_path / "log").write_text("new\n")
    assert list(GrowingFile(tmp_path / "log").new()) == ["old", "new"]


def test_a_file_that_is_rotated_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "log"
    source = GrowingFile(path)
    append(path, "one\n")
    assert list(source.new()) == ["one"]
    append(path, "two\n")
    path.rename(tmp_path / "log.1")
    assert list(source.new()) == ["two"]
    append(path, "three\n")
    assert list(source.new()) == ["three"]


def test_a_file_that_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "log"
    source = GrowingFile(path)
    append(path, "one\ntwo")
    assert list(source.new()) == ["one"]
    path.write_text("3\n")
    assert list(source.new()) == ["3"]


def test_a_directory_in_its_place_is_an_error_with_a_code(tmp_path: Path) -> None:
    with pytest.raises(CredspecError, match="log-unreadable"):
        list(GrowingFile(tmp_path).new())


@given(
    lines=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n")), max_size=9),
    cuts=st.lists(st.integers(0, 200), max_size=6),
)
def test_lines_come_whole_however_they_are_written(lines: list[str], cuts: list[int]) -> None:
    data = "".join(f"{line}\n" for line in lines).encode()
    reading, writing = os.pipe()
    source = Pipe(reading, wait=False)
    found: list[str] = []
    try:
        for start, end in zip(
            [0, *sorted(cuts)], [*sorted(cuts), len(data) + max(cuts, default=0)], strict=True
        ):
            os.write(writing, data[start:end])
            found += source.new()
        assert found == lines
    finally:
        os.close(writing)
        os.close(reading)
