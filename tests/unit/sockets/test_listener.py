"""Sockets that a service makes: in place of dead ones only, and closed to others from the start."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from credspec.errors import UsageError
from credspec.sockets.listener import PathTakenError, bind, listen


@pytest.fixture
def unbound() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as made:
        yield made


def dead_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize("replaces", [True, False])
def test_a_socket_that_nobody_listens_on_is_replaced(
    tmp_path: Path, unbound: socket.socket, *, replaces: bool
) -> None:
    path = tmp_path / "s"
    dead_socket(path)
    before = path.stat().st_ino
    bind(unbound, path, replaces_files=replaces)
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert path.stat().st_ino != before or unbound.getsockname() == str(path)


@pytest.mark.parametrize("backlog", [0, 4096])
@pytest.mark.parametrize("replaces", [True, False])
def test_one_that_a_process_listens_on_stays_however_busy_it_is(
    tmp_path: Path, unbound: socket.socket, *, backlog: int, replaces: bool
) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as first:
        other.bind(str(path))
        other.listen(backlog)
        first.connect(str(path))
        with pytest.raises(PathTakenError) as caught:
            bind(unbound, path, replaces_files=replaces)
        assert caught.value.is_listening
        with pytest.raises(UsageError, match="agent-running"):
            listen(path, others=False)
        other.accept()[0].close()
        assert path.exists()


@pytest.mark.parametrize("kind", ["file", "directory", "link", "dangling link"])
def test_a_file_of_another_kind_stays_unless_that_is_wanted(
    tmp_path: Path, unbound: socket.socket, kind: str
) -> None:
    path, target = tmp_path / "s", tmp_path / "target"
    if kind == "file":
        path.write_text("kept")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(target)
        if kind == "link":
            target.write_text("kept")
    before = path.lstat()
    with pytest.raises(PathTakenError) as caught:
        bind(unbound, path)
    assert not caught.value.is_listening
    assert path.lstat().st_ino == before.st_ino
    if kind == "directory":
        with pytest.raises(OSError, match=r"directory|not permitted"):
            bind(unbound, path, replaces_files=True)
        return
    bind(unbound, path, replaces_files=True)
    assert stat.S_ISSOCK(path.lstat().st_mode)
    assert target.exists() == (kind == "link"), "a link is replaced, not followed"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o177])
@pytest.mark.parametrize(("others", "mode"), [(True, 0o666), (False, 0o600)])
def test_who_may_connect_is_said_by_the_mode_whatever_the_umask(
    tmp_path: Path, umask: int, *, others: bool, mode: int
) -> None:
    before = os.umask(umask)
    try:
        with listen(tmp_path / "s", others=others):
            assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == mode
    finally:
        os.umask(before)


def test_where_none_can_be_made_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        listen(tmp_path / "missing" / "s", others=True)
    assert list(tmp_path.iterdir()) == []
