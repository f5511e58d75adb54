"""No component of a path is followed if it is a link, and every directory is checked in turn."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from credspec.path_walk import (
    DIRECTORY_FLAGS,
    LinkError,
    open_component,
    opened_directory,
    read_file,
)
from support.machine.open_files import opened_below

PARTS = ("a", "b", "c")


@pytest.fixture
def top(tmp_path: Path) -> Path:
    tmp_path.joinpath(*PARTS).mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("depth", range(4))
@pytest.mark.parametrize("flags", [DIRECTORY_FLAGS, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW])
@pytest.mark.parametrize("by_descriptor", [False, True])
def test_the_directory_below_is_opened_and_nothing_stays_open(
    top: Path, depth: int, flags: int, by_descriptor: bool
) -> None:
    given = os.open(top, DIRECTORY_FLAGS) if by_descriptor else top
    before = opened_below(top)
    with opened_directory(given, PARTS[:depth], flags=flags) as descriptor:
        assert os.path.samestat(os.fstat(descriptor), top.joinpath(*PARTS[:depth]).stat())
    assert opened_below(top) == before
    if isinstance(given, int):
        os.close(given)


@pytest.mark.parametrize("link", range(3))
def test_a_link_at_any_step_is_refused_and_named(top: Path, link: int) -> None:
    path = top.joinpath(*PARTS[: link + 1])
    path.rename(top / "elsewhere")
    path.symlink_to(top / "elsewhere")
    before = opened_below(top)
    with pytest.raises(LinkError) as caught, opened_directory(top, PARTS):
        pass
    assert caught.value.filename == PARTS[link]
    assert opened_below(top) == before


def test_a_top_that_is_a_link_is_refused(top: Path) -> None:
    (top / "link").symlink_to(top / "a")
    with pytest.raises(NotADirectoryError), opened_directory(top / "link"):
        pass


@pytest.mark.parametrize("name", ["absent", "file"])
def test_what_is_no_directory_is_not_called_a_link(top: Path, name: str) -> None:
    (top / "file").touch()
    with pytest.raises((FileNotFoundError, NotADirectoryError)), opened_directory(top, [name]):
        pass


def test_a_file_that_is_a_link_is_refused(top: Path) -> None:
    (top / "link").symlink_to("/etc/passwd")
    flags = os.O_RDONLY | os.O_NOFOLLOW
    with opened_directory(top) as directory, pytest.raises(LinkError):
        open_component("link", flags, directory)


@pytest.mark.parametrize("refused", PARTS)
def test_each_directory_is_checked_before_the_next_is_opened(top: Path, refused: str) -> None:
    seen: list[str] = []

    def check(descriptor: int, name: str) -> None:
        assert os.path.samestat(os.fstat(descriptor), top.joinpath(*PARTS[: len(seen) + 1]).stat())
        seen.append(name)
        if name == refused:
            raise PermissionError(name)

    before = opened_below(top)
    with pytest.raises(PermissionError), opened_directory(top, PARTS, check=check):
        pass
    assert seen == list(PARTS[: PARTS.index(refused) + 1])
    assert opened_below(top) == before


def test_a_regular_file_is_read_up_to_a_size_and_nothing_else(top: Path) -> None:
    (top / "file").write_bytes(b"content")
    (top / "link").symlink_to("file")
    os.mkfifo(top / "pipe")
    before = opened_below(top)
    with opened_directory(top) as descriptor:
        assert read_file("file", descriptor, 7) == b"content"
        for name, most in (("file", 6), ("link", 7), ("pipe", 7), ("a", 7), ("absent", 7)):
            with pytest.raises(OSError, match=r"."):
                read_file(name, descriptor, most)
    assert opened_below(top) == before
