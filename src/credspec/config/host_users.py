"""Users of the host, also where the C library's sources cannot be asked for them.

sssd, winbind and systemd answer the C library on Unix sockets, which the agent's unit forbids. So
its unit looks up the users of the configuration outside the sandbox, before each start and reload,
and the agent reads what was found. Without that file the C library is asked.
"""

from __future__ import annotations

import json
import os
import pwd
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from credspec.config_table import texts
from credspec.file_replacement import remove_unfinished, replace_file

USERS_VARIABLE: Final = "CREDSPEC_USERS"
"""Environment variable that names the file with the users that were looked up."""

_MAX_BYTES: Final = 1 << 20


class HostUser(NamedTuple):
    """A user: the name by which it was looked up, its name and number, and those of its groups."""

    looked_up: str
    name: str
    uid: int
    groups: tuple[int, ...]


def user_named(name: str) -> HostUser | None:
    """Return a user by name, None if there is none."""
    for user in _known():
        if user.looked_up == name:
            return user
    try:
        return _user(pwd.getpwnam(name), name)
    except (KeyError, ValueError, OSError):
        return None


def _uid(name: str) -> int | None:
    user = user_named(name)
    return None if user is None else user.uid


USERS: Final = texts(_uid, "the name of a user of this host", collect=frozenset)
"""What a key takes that names users; read are their numbers."""


def user_of(uid: int) -> HostUser | None:
    """Return a user by number, None if there is none."""
    for user in _known():
        if user.uid == uid:
            return user
    try:
        entry = pwd.getpwuid(uid)
        return _user(entry, entry.pw_name)
    except (KeyError, OSError):
        return None


def write_users(names: Iterable[str], path: Path) -> None:
    """Look users up and write what is found, for `user_named` and `user_of` of a later process.

    Names that nobody has are left out. The directory is made if it is not there.
    """
    found = []
    for name in dict.fromkeys(names):
        try:
            found.append(_user(pwd.getpwnam(name), name)._asdict())
        except (KeyError, ValueError, OSError):
            continue
    path.parent.mkdir(mode=0o700, exist_ok=True)
    remove_unfinished(path.parent)
    replace_file(path, json.dumps({"users": found}).encode(), mode=0o600)


def _user(entry: pwd.struct_passwd, looked_up: str) -> HostUser:
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return HostUser(looked_up, entry.pw_name, entry.pw_uid, tuple(groups))


def _known() -> list[HostUser]:
    path = os.environ.get(USERS_VARIABLE)
    if not path:
        return []
    try:
        content = _trusted_content(path)
        return [
            HostUser(each["looked_up"], each["name"], each["uid"], tuple(each["groups"]))
            for each in json.loads(content)["users"]
        ]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _trusted_content(path: str) -> bytes:
    """Return what is in a regular file that nobody but this user may write.

    Raises:
        OSError: it is not there, or not such a file.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(fd)
        others_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or others_write:
            raise PermissionError(path)
        return os.read(fd, _MAX_BYTES)
    finally:
        os.close(fd)
