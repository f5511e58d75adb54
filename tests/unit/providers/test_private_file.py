"""Files with secrets in all the ways in which they might be somebody else's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from credspec.errors import CredspecError
from credspec.providers.answers import MAX_ANSWER_BYTES
from credspec.providers.private_file import check_program_file, read_private_file
from support.machine.open_files import opened_below

NOBODY = 65534


@pytest.fixture
def file(tmp_path: Path) -> Path:
    directory = tmp_path / "secrets"
    directory.mkdir(mode=0o700)
    made = directory / "account"
    made.write_bytes(b"content")
    made.chmod(0o600)
    return made


def is_refused(file: Path, *, secret: bool = True) -> bool:
    try:
        read_private_file(file, "provider file", secret=secret)
    except CredspecError as error:
        assert error.code == "host-account-file"
        assert "content" not in str(error)
        return True
    return False


def test_what_is_roots_alone_is_read(file: Path) -> None:
    assert read_private_file(file, "w") == b"content"
    check_program_file(file, "w")


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o610, 0o604, 0o602, 0o601])
def test_a_secret_is_nobody_elses_in_any_way(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert is_refused(file)
    # What is no secret may be read, but not be written, by others.
    written = bool(mode & 0o022)
    assert is_refused(file, secret=False) is written
    if written:
        with pytest.raises(CredspecError, match="host-account-file"):
            check_program_file(file, "w")
    else:
        check_program_file(file, "w")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("given_away", ["account", "secrets"])
def test_what_another_user_owns_is_not_trusted(file: Path, given_away: str) -> None:
    os.chown(file if given_away == "account" else file.parent, NOBODY, NOBODY)
    assert is_refused(file)
    assert is_refused(file, secret=False)
    with pytest.raises(CredspecError, match="belongs to user 65534"):
        check_program_file(file, "w")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("owner", [0, NOBODY, NOBODY - 1])
def test_an_unprivileged_process_trusts_root_and_itself_simulated(
    file: Path, monkeypatch: pytest.MonkeyPatch, owner: int
) -> None:
    os.chown(file, owner, owner)
    monkeypatch.setattr("os.geteuid", lambda: NOBODY)
    assert is_refused(file) is (owner not in {0, NOBODY})


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_directory_in_which_others_can_replace_it(file: Path, mode: int) -> None:
    file.parent.chmod(mode)
    assert is_refused(file)
    # As /tmp: there, nobody can replace what is another's.
    file.parent.chmod(mode | 0o1000)
    assert not is_refused(file)


@pytest.mark.parametrize("what", ["file", "directory"])
def test_links_are_not_followed(file: Path, what: str) -> None:
    if what == "file":
        (file.parent / "link").symlink_to("account")
        path = file.parent / "link"
    else:
        (file.parent.parent / "link").symlink_to("secrets")
        path = file.parent.parent / "link" / "account"
    with pytest.raises(CredspecError, match="link is a link"):
        read_private_file(path, "w")


def test_special_files_are_refused_and_hold_nobody_up(file: Path) -> None:
    os.mkfifo(file.parent / "fifo", 0o600)
    (file.parent / "directory").mkdir(mode=0o700)
    for name in ("fifo", "directory"):
        with pytest.raises(CredspecError, match="not a regular file"):
            read_private_file(file.parent / name, "w")
    for name in ("absent", "absent/account"):
        assert is_refused(file.parent / name)


def test_no_more_than_an_answer_may_have_is_read(file: Path) -> None:
    file.write_bytes(b"x" * (MAX_ANSWER_BYTES - 1))
    assert len(read_private_file(file, "w")) == MAX_ANSWER_BYTES - 1
    file.write_bytes(b"x" * (3 * MAX_ANSWER_BYTES))
    assert len(read_private_file(file, "w")) == MAX_ANSWER_BYTES + 1, "enough to tell"


def test_no_descriptor_is_left_open(file: Path) -> None:
    (file.parent / "link").symlink_to("account")
    (file.parent / "open").write_text("x")
    (file.parent / "open").chmod(0o644)
    for name in ("account", "link", "open", "absent", "."):
        is_refused(file.parent / name)
    check_program_file(file, "w")
    assert opened_below(file.parent) == []
