"""The runtime state directories of unprivileged users: where they may be, and whether they exist.

The agent may look everywhere, its callers may not. So a user's state is below the user's runtime
directory or home, and it is looked up without following any link: otherwise a lease that stays or
goes would tell a user what there is in directories of others.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from credspec.agent.leases.directory_errors import means_gone
from credspec.errors import NotPermittedError
from credspec.path_walk import opened_directory

USERS: Final = Path("/run/user")
"""Where the users' runtime directories are (file-hierarchy(7))."""

_OPEN: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def checked_state(user: int, state: str, *, users: Path = USERS) -> str:
    """Return the path of a user's runtime state as it is kept, without links above the home.

    It may block: homes are on network file systems, and users in directories.

    Raises:
        NotPermittedError: `runtime-state-not-permitted`.
    """
    parts = state.removeprefix("/").split("/")
    if not {"", ".", ".."} & set(parts):
        runtime = users / str(user)
        if _is_below(state, runtime):
            return state
        home, real = _home(user)
        for base in (home, real):
            if base is not None and real is not None and _is_below(state, base):
                return str(real) + state.removeprefix(str(base))
    raise NotPermittedError.of(
        "runtime-state-not-permitted",
        f"{state[:200]} is not for user {user} to name",
        where="/runtime_state",
        expected=f"a directory below {users / str(user)} or below the user's home, without ..",
        remedy="start the engine as this user, with XDG_RUNTIME_DIR set",
    )


def is_there(user: int, state: str, *, users: Path = USERS) -> bool:
    """Return whether a user's runtime state exists; where this is in doubt, it does.

    It may block.
    """
    runtime = users / str(user)
    base = runtime if _is_below(state, runtime) else Path("/")
    parts = state.removeprefix(str(base)).strip("/").split("/")
    try:
        return _is_directory(base, parts, None if base == runtime else user)
    except OSError as error:
        return not means_gone(error)
    except ValueError:
        return False


def _is_directory(base: Path, parts: Sequence[str], owner: int | None) -> bool:
    if not {"", ".", ".."}.isdisjoint(parts):
        return False
    with opened_directory(base, parts, flags=_OPEN) as fd:
        return owner is None or os.fstat(fd).st_uid == owner


def _is_below(state: str, directory: Path) -> bool:
    return state.startswith(f"{directory}/")


def _home(user: int) -> tuple[Path | None, Path | None]:
    """Return a user's home as it is called and as it is without links, None without one."""
    try:
        home = Path(pwd.getpwuid(user).pw_dir)
        real = home.resolve(strict=True)
        # Some services' home is a directory of root's, or all of them.
        is_own = home.is_absolute() and real.stat().st_uid == user
    except (KeyError, OSError, RuntimeError, ValueError):
        return None, None
    return (home, real) if is_own else (None, None)
