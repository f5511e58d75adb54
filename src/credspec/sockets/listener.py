"""Unix sockets that a service listens on: made where nobody else does, opened to its users."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

from credspec.errors import CredspecError, UsageError

_BACKLOG: Final = 4096


def listen(path: Path, *, others: bool) -> socket.socket:
    """Take the socket's place, unless a living agent has it; `others` than root may connect.

    Raises:
        UsageError: `agent-running`.
        CredspecError: `agent-socket-missing` if this process may make no Unix socket.
    """
    try:
        other = socket.socket(socket.AF_UNIX)
    except OSError as error:
        raise CredspecError.of(
            "agent-socket-missing",
            f"cannot make a Unix socket ({error.strerror}), and systemd passed none",
            where=str(path),
            remedy="run `systemctl start credspec-agent.socket`",
        ) from None
    with other:
        try:
            other.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
        else:
            raise UsageError.of("agent-running", "another agent answers there", where=str(path))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))  # the umask leaves it to root only
    if others:
        share(path, others=True)
    listener.listen(_BACKLOG)
    return listener


def share(path: Path, *, others: bool) -> None:
    """Let `others` than root connect to a socket, or only root; one that has gone is fine."""
    with suppress(FileNotFoundError):
        # Who of them is heard is decided by the kernel's word on each caller.
        path.chmod(0o666 if others else 0o600)
