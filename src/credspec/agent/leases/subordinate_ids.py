"""Which users and groups an unprivileged user may act for: its own and its subordinate ones.

Rootless engines map those into their containers (subuid(5), subgid(5), newuidmap(1)).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from credspec.config.host_users import user_of
from credspec.errors import NotPermittedError

_SUBUID: Final = Path("/etc/subuid")
_SUBGID: Final = Path("/etc/subgid")


def check_owner(
    user: int, uid: int, gid: int, *, subuid: Path = _SUBUID, subgid: Path = _SUBGID
) -> None:
    """Refuse files of an owner whom a user cannot be.

    Raises:
        NotPermittedError: `owner-not-permitted`.
    """
    found = user_of(user)
    name, groups = (str(user), ()) if found is None else (found.name, found.groups)
    if uid != user and not _has(subuid, name, user, uid):
        raise _refused(f"user {uid} is neither {name} nor a subordinate of {name}", subuid)
    if gid not in groups and not _has(subgid, name, user, gid):
        raise _refused(f"group {gid} is neither a group of {name} nor a subordinate", subgid)


def _has(path: Path, name: str, user: int, wanted: int) -> bool:
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return False
    for line in lines:
        owner, _, numbers = line.partition(":")
        first, _, count = numbers.partition(":")
        if owner not in {name, str(user)} or not (first.isdigit() and count.isdigit()):
            continue
        if int(first) <= wanted < int(first) + int(count):
            return True
    return False


def _refused(found: str, path: Path) -> NotPermittedError:
    return NotPermittedError.of(
        "owner-not-permitted",
        found,
        where="owner of the tickets",
        expected=f"the caller, or one of its numbers in {path}",
    )
