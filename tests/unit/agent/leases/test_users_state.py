"""Where a user's runtime state may be, and that looking for it tells nothing of others' files."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.agent.leases import users_state
from credspec.agent.leases.users_state import checked_state, is_there
from credspec.errors import NotPermittedError

USER = 54321


@pytest.fixture
def users(tmp_path: Path) -> Path:
    (tmp_path / "users" / str(USER) / "runc" / "c1").mkdir(parents=True)
    (tmp_path / "secret" / "in").mkdir(parents=True)
    return tmp_path / "users"


@pytest.mark.parametrize(
    "state",
    [
        "/",
        "/root/secret",
        "{users}",
        "{users}/54321",
        "{users}/543210/x",
        "{users}/1/x",
        "{users}/54321/../1/x",
        "{users}/54321/./x",
        "{users}/54321//x",
        "{users}/54321/x/",
        "//{users}/54321/x",
        "/nonexistent/x",
        "/" + "a" * 300,
    ],
)
def test_paths_that_a_user_may_not_name(users: Path, state: str) -> None:
    with pytest.raises(NotPermittedError) as caught:
        checked_state(USER, state.format(users=users), users=users)
    assert caught.value.code == "runtime-state-not-permitted"


@given(st.lists(st.sampled_from(["..", ".", "", "users", "54321", "1", "secret", "a"]), max_size=8))
def test_no_combination_of_parts_leads_out(parts: list[str]) -> None:
    users = Path("/nowhere/users")
    state = "/nowhere/" + "/".join(parts)
    try:
        kept = checked_state(USER, state, users=users)
    except NotPermittedError:
        return
    assert kept == state == os.path.normpath(state)
    assert Path(state).is_relative_to(users / str(USER))


def test_state_below_the_runtime_directory(users: Path) -> None:
    state = str(users / str(USER) / "runc/c1")
    assert checked_state(USER, state, users=users) == state
    assert is_there(USER, state, users=users)
    assert not is_there(USER, f"{state}/gone", users=users)
    (users / str(USER) / "file").touch()
    assert not is_there(USER, str(users / str(USER) / "file"), users=users)


def test_links_are_not_followed(users: Path) -> None:
    own = users / str(USER)
    (own / "link").symlink_to(users.parent / "secret")
    (own / "last").symlink_to(users.parent / "secret" / "in")
    for name in ("link/in", "last", "link/not-there"):
        assert not is_there(USER, str(own / name), users=users), name


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that is reached by a link, as on systems where /home is one."""
    real = tmp_path / "var/home/user"
    (real / "state").mkdir(parents=True)
    os.chown(real, USER, USER)
    os.chown(real / "state", USER, USER)
    (tmp_path / "home").symlink_to("var/home")
    entry = pwd.struct_passwd(("u", "x", USER, USER, "", str(tmp_path / "home/user"), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda _: entry)
    return tmp_path


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_state_below_the_home(home: Path, users: Path) -> None:
    kept = str(home / "var/home/user/state")
    for named in (home / "home/user/state", home / "var/home/user/state"):
        assert checked_state(USER, str(named), users=users) == kept
    assert is_there(USER, kept, users=users)
    # What is not the user's own is nothing to it, whatever an older version let it name.
    os.chown(kept, 0, 0)
    assert not is_there(USER, kept, users=users)
    for state in ("/", str(users.parent / "secret/in"), "/proc/1/root"):
        assert not is_there(USER, state, users=users)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_a_home_that_is_not_the_users_counts_for_nothing(home: Path, users: Path) -> None:
    os.chown(home / "var/home/user", 0, 0)
    with pytest.raises(NotPermittedError):
        checked_state(USER, str(home / "home/user/state"), users=users)


@pytest.mark.parametrize(
    ("number", "there"), [(2, False), (20, False), (36, False), (5, True), (13, True), (116, True)]
)
def test_only_what_says_that_nothing_is_there_ends_it_simulated(
    users: Path, monkeypatch: pytest.MonkeyPatch, number: int, there: bool
) -> None:
    def fails(*_: object) -> bool:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(users_state, "_is_directory", fails)
    assert is_there(USER, str(users / str(USER) / "x"), users=users) is there


@given(st.text(st.characters(codec="utf-8", exclude_characters=""), max_size=300))
def test_no_path_makes_it_raise(text: str) -> None:
    is_there(USER, f"/{text}", users=Path("/nowhere"))
