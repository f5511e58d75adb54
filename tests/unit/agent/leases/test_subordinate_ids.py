from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from credspec.agent.leases.subordinate_ids import check_owner
from credspec.errors import NotPermittedError

USER = pwd.getpwuid(os.getuid())


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    text = f"other:100000:65536\n{USER.pw_name}:200000:10\nnonsense\n{USER.pw_uid}:300000:x\n"
    for name in ("subuid", "subgid"):
        (tmp_path / name).write_text(text)
    return {name: tmp_path / name for name in ("subuid", "subgid")}


@pytest.mark.parametrize("uid", [USER.pw_uid, 200000, 200009])
@pytest.mark.parametrize("gid", [USER.pw_gid, 200000, 200009])
def test_own_and_subordinate(files: dict[str, Path], uid: int, gid: int) -> None:
    check_owner(USER.pw_uid, uid, gid, **files)


@pytest.mark.parametrize(
    ("uid", "gid"),
    [(200010, USER.pw_gid), (199999, USER.pw_gid), (100000, 200000), (USER.pw_uid, 100000)],
)
def test_anybody_else(files: dict[str, Path], uid: int, gid: int) -> None:
    with pytest.raises(NotPermittedError, match="owner-not-permitted"):
        check_owner(USER.pw_uid, uid, gid, **files)


def test_without_files_and_without_a_name(tmp_path: Path) -> None:
    missing = {"subuid": tmp_path / "no", "subgid": tmp_path / "no"}
    check_owner(USER.pw_uid, USER.pw_uid, USER.pw_gid, **missing)
    nobody_has_this = 3999999999
    with pytest.raises(NotPermittedError, match="neither a group"):
        check_owner(nobody_has_this, nobody_has_this, 0, **missing)
