"""The gateway's Unix socket in the file system: made, guarded and removed."""

from __future__ import annotations

import errno
import grp
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from credspec.errors import CredspecError, NotPermittedError, UsageError
from credspec.sockets.listener import PathTakenError, bind

_BACKLOG: Final = 4096
_MODE: Final = 0o660
_OWN_MODE: Final = 0o600


@contextmanager
def listening(path: Path, group: str | None, upstream: Path) -> Iterator[socket.socket]:
    """Listen on `path` and remove it at the end.

    The socket belongs to `group` (a name or number), by default to the group of the daemon's own
    socket `upstream`: users of the one may use the other. A user who cannot give it to that
    group, as with a rootless daemon, keeps it private.

    Raises:
        UsageError: ``gateway-running``, ``gateway-path-taken`` or ``gateway-group-unknown``.
        NotPermittedError: ``gateway-socket``.
        CredspecError: ``gateway-socket``.
    """
    group_id = _group_id(group, upstream)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as listener:
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            bind(listener, path)
        except PathTakenError as error:
            raise _path_taken(path, error) from None
        except OSError as error:
            raise _error(path, error) from None
        made = path.stat()
        try:
            _hand_over(path, group_id, is_wanted=group is not None)
            listener.listen(_BACKLOG)
            yield listener
        finally:
            _remove_own(path, made)


def _group_id(group: str | None, upstream: Path) -> int | None:
    if group is None:
        with suppress(OSError):
            return upstream.stat().st_gid
        with suppress(KeyError):
            return grp.getgrnam("docker").gr_gid
        return None
    with suppress(KeyError):
        return grp.getgrnam(group).gr_gid
    if group.isascii() and group.isdigit():
        return int(group)
    raise UsageError.of(
        "gateway-group-unknown",
        f"no group {group!r} on this host",
        where="--group",
        expected="a group's name or number",
    )


def _path_taken(path: Path, error: PathTakenError) -> UsageError:
    if error.is_listening:
        return UsageError.of(
            "gateway-running",
            "another process listens there",
            where=str(path),
            remedy="stop it, or name another path with --listen",
        )
    return UsageError.of(
        "gateway-path-taken",
        "exists and is not a socket",
        where=str(path),
        remedy="name another path with --listen",
    )


def _hand_over(path: Path, group_id: int | None, *, is_wanted: bool) -> None:
    mode = _MODE
    try:
        if group_id is not None and group_id != path.stat().st_gid:
            try:
                os.chown(path, -1, group_id)
            except PermissionError:
                if is_wanted:
                    raise
                mode = _OWN_MODE
        path.chmod(mode)
    except OSError as error:
        raise _error(path, error) from None


def _remove_own(path: Path, made: os.stat_result) -> None:
    with suppress(OSError):
        now = path.lstat()
        if (now.st_dev, now.st_ino) == (made.st_dev, made.st_ino):
            path.unlink()


def _error(path: Path, error: OSError) -> CredspecError:
    refused = error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}
    kind = NotPermittedError if refused else CredspecError
    return kind.of(
        "gateway-socket",
        f"cannot listen: {error.strerror or error}",
        where=str(path),
        remedy="run as root, or name another path with --listen" if refused else "",
    )
