"""Files that are replaced are whole, whatever goes wrong and whoever reads meanwhile."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.file_replacement import TEMPORARY, remove_unfinished, replace_file


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755])
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("is_there", [False, True])
def test_the_mode_is_what_was_asked_for(
    tmp_path: Path, mode: int, umask: int, is_there: bool
) -> None:
    path = tmp_path / "file"
    if is_there:
        path.write_bytes(b"old")
    before = os.umask(umask)
    try:
        replace_file(path, b"new", mode=mode)
    finally:
        os.umask(before)
    assert (path.read_bytes(), path.stat().st_mode & 0o7777) == (b"new", mode)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_who_may_not_change_files_of_others_gives_them_away(tmp_path: Path) -> None:
    program = (
        "import sys; from credspec.file_replacement import replace_file; "
        "replace_file(sys.argv[1], b'new', mode=0o440, owner=(4711, 4712))"
    )
    path = tmp_path / "file"
    subprocess.run(
        ["setpriv", "--bounding-set", "-fowner", sys.executable, "-c", program, path], check=True
    )
    state = path.stat()
    assert (state.st_uid, state.st_gid, state.st_mode & 0o7777) == (4711, 4712, 0o440)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_bits_that_a_change_of_owner_takes_are_set_again(tmp_path: Path) -> None:
    replace_file(tmp_path / "file", b"new", mode=0o6755, owner=(4711, 4712))
    assert (tmp_path / "file").stat().st_mode & 0o7777 == 0o6755


@pytest.mark.parametrize("step", ["write", "fchown", "fchmod", "fsync", "rename", "link"])
@pytest.mark.parametrize("by_descriptor", [False, True])
def test_a_failure_at_any_step_leaves_all_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, by_descriptor: bool
) -> None:
    (tmp_path / "file").write_bytes(b"old")
    options: dict[str, object] = {"owner": (os.getuid(), os.getgid()), "durable": True}
    name: Path | str = tmp_path / ("other" if step == "link" else "file")
    if step == "link":
        options["no_clobber"] = True
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    if by_descriptor:
        name, options["dir_fd"] = Path(name).name, descriptor

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    if step == "write":
        monkeypatch.setattr(os, "fdopen", fail)
    else:
        monkeypatch.setattr(os, step, fail)
    try:
        with pytest.raises(OSError, match="full"):
            replace_file(name, b"new", mode=0o600, **options)  # type: ignore[arg-type]
    finally:
        monkeypatch.undo()
        os.close(descriptor)
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {"file": b"old"}


def test_a_file_that_is_there_stays_if_it_must_not_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace_file(path, b"first", mode=0o600, no_clobber=True)
    with pytest.raises(FileExistsError):
        replace_file(path, b"second", mode=0o600, no_clobber=True)
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_replaced_and_what_it_points_to_stays(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    replace_file(link, b"new", mode=0o600)
    assert (target.read_bytes(), link.read_bytes(), link.is_symlink()) == (b"old", b"new", False)


@given(st.lists(st.integers(0, 200_000), min_size=1, max_size=4))
def test_readers_see_one_content_or_the_other(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    path = tmp_path_factory.mktemp("read") / "file"
    contents = [bytes([i]) * size for i, size in enumerate(sizes)]
    replace_file(path, contents[0], mode=0o600)
    seen: set[bytes] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for content in contents:
        replace_file(path, content, mode=0o600)
    done.set()
    reader.join()
    assert seen <= set(contents)


def test_what_a_killed_process_had_begun_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in ("file", "credspec-1", ".hidden"):
        (tmp_path / name).write_bytes(b"kept")
    (tmp_path / f"{TEMPORARY}directory").mkdir()
    (tmp_path / f"{TEMPORARY}link").symlink_to(tmp_path / "file")
    child = os.fork()
    if child == 0:
        os.rename = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        replace_file(tmp_path / "file", b"new", mode=0o600)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 6
    remove_unfinished(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"file", "credspec-1", ".hidden", f"{TEMPORARY}directory"}
    assert (tmp_path / "file").read_bytes() == b"kept"
    remove_unfinished(tmp_path / "missing")
