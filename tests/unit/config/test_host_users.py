"""Users looked up outside a sandbox and read inside it; the file as a hostile host may have it."""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path

import pytest

from credspec.agent.leases.subordinate_ids import check_owner
from credspec.config.host import load_config, users_in_configuration
from credspec.config.host_users import USERS_VARIABLE, HostUser, user_named, user_of, write_users
from credspec.errors import NotPermittedError, UsageError

ALICE = HostUser("alice@contoso.com", "alice", 1_234_567, (1_234_567, 4_000))
NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that names a user whom the C library does not know here."""
    path = tmp_path / "users.json"
    entry = {"looked_up": ALICE.looked_up, "name": ALICE.name, "uid": ALICE.uid}
    path.write_text(json.dumps({"users": [entry | {"groups": list(ALICE.groups)}]}))
    path.chmod(0o600)
    monkeypatch.setenv(USERS_VARIABLE, str(path))
    return path


def test_a_user_of_the_file(users: Path) -> None:
    assert user_named("alice@contoso.com") == user_of(ALICE.uid) == ALICE
    # By the name that it was looked up by, since another source may give "alice" to another.
    assert user_named("alice") is None


def test_the_c_library_is_asked_for_others(users: Path) -> None:
    found = user_named("nobody")
    assert found is not None
    assert (found.uid, found.groups) == (NOBODY.pw_uid, (NOBODY.pw_gid,))
    assert user_of(NOBODY.pw_uid) == found
    assert user_of(3_999_999_999) is None
    assert user_named("no such user") is None
    assert user_named("a\0b") is None


def test_what_is_looked_up_is_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "host/users.json"
    write_users(["nobody", "no such user", "nobody", "a\0b"], path)
    assert [user["name"] for user in json.loads(path.read_text())["users"]] == ["nobody"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["users.json"]
    monkeypatch.setenv(USERS_VARIABLE, str(path))
    monkeypatch.setattr("pwd.getpwnam", None)  # is not asked
    found = user_named("nobody")
    assert found is not None
    assert found.uid == NOBODY.pw_uid


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.chmod(0o620),
        lambda path: path.chmod(0o602),
        lambda path: path.write_text("{"),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text('{"users": [{"name": "alice"}]}'),
        lambda path: path.write_text('{"users": 7}'),
        lambda path: (path.rename(path.with_name("x")), path.symlink_to("x")),
        lambda path: (path.unlink(), os.mkfifo(path, 0o600)),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: path.unlink(),
    ],
)
def test_a_file_that_is_not_trusted_counts_as_none(users: Path, spoil) -> None:
    spoil(users)
    assert user_named("alice@contoso.com") is None
    assert user_of(ALICE.uid) is None
    assert user_of(NOBODY.pw_uid) is not None


def test_the_policy_and_whose_files_a_user_may_have(users: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[policy]\nusers = ["alice@contoso.com", "nobody"]\n')
    assert load_config(config).policy.uids == {ALICE.uid, NOBODY.pw_uid}
    subuid = tmp_path / "subuid"
    subuid.write_text("alice:500000:10\n")
    check_owner(ALICE.uid, ALICE.uid, 4_000, subuid=subuid, subgid=subuid)
    check_owner(ALICE.uid, 500_009, 500_009, subuid=subuid, subgid=subuid)
    with pytest.raises(NotPermittedError, match="owner-not-permitted"):
        check_owner(ALICE.uid, ALICE.uid, 4_001, subuid=subuid, subgid=subuid)
    config.write_text('[policy]\nusers = ["alice"]\n')
    with pytest.raises(UsageError, match="config-wrong-value"):
        load_config(config)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('[policy]\nusers = ["a"]\n[credentials_fetcher]\nusers = ["b", "c"]\n', ["a", "b", "c"]),
        ("[policy]\nusers = 7\n", []),
        ('[policy]\nusers = ["a", 7]\n', ["a"]),
        ("policy = 7\n", []),
        ("not TOML", []),
        ("", []),
    ],
)
def test_the_users_that_a_configuration_names(tmp_path: Path, text: str, names: list[str]) -> None:
    config = tmp_path / "config.toml"
    config.write_text(text)
    assert users_in_configuration(config) == names
    assert users_in_configuration(tmp_path / "none") == []
