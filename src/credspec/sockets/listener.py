"""Unix sockets that a service listens on: made where nobody else does, opened to its users."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from credspec.errors import CredspecError, UsageError

_BACKLOG: Final = 4096


class PathTakenError(Exception):
    """A socket cannot be made there: a process listens (`is_listening`), or it is another file."""

    def __init__(self, *, is_listening: bool) -> None:
        super().__init__("another process listens" if is_listening else "not a socket")
        self.is_listening = is_listening


def bind(listener: socket.socket, path: Path, *, replaces_files: bool = False) -> None:
    """Bind a Unix socket in place of one that nobody listens on; only its owner may connect to it.

    With `replaces_files` also in place of a file of another kind.

    Raises:
        PathTakenError: something is there that must stay.
        OSError: what the system says.
    """
    remove_stale(path, replaces_files=replaces_files)
    # The mode of the unbound socket becomes the file's: no other user connects at any moment.
    os.fchmod(listener.fileno(), 0o600)
    listener.bind(str(path))


def remove_stale(path: Path, *, replaces_files: bool = False) -> None:
    """Remove a socket that nobody listens on; raises as `bind`."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        if not replaces_files:
            raise PathTakenError(is_listening=False)
        path.unlink(missing_ok=True)
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass  # a process listens, and is busy
    raise PathTakenError(is_listening=True)


def listen(path: Path, *, others: bool) -> socket.socket:
    """Take the socket's place, unless a living agent has it; `others` than root may connect.

    Raises:
        UsageError: `agent-running`.
        CredspecError: `agent-socket-missing` if this process may make no Unix socket.
    """
    try:
        listener = socket.socket(socket.AF_UNIX)
    except OSError as error:
        raise CredspecError.of(
            "agent-socket-missing",
            f"cannot make a Unix socket ({error.strerror}), and systemd passed none",
            where=str(path),
            remedy="run `systemctl start credspec-agent.socket`",
        ) from None
    try:
        bind(listener, path, replaces_files=True)
    except PathTakenError:
        listener.close()
        raise UsageError.of(
            "agent-running", "another agent answers there", where=str(path)
        ) from None
    except BaseException:
        listener.close()
        raise
    if others:
        share(path, others=True)
    listener.listen(_BACKLOG)
    return listener


def share(path: Path, *, others: bool) -> None:
    """Let `others` than root connect to a socket, or only root; one that has gone is fine."""
    with suppress(FileNotFoundError):
        # Who of them is heard is decided by the kernel's word on each caller.
        path.chmod(0o666 if others else 0o600)
