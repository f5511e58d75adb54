"""The listening socket that systemd makes for the agent (sd_listen_fds(3)).

The agent's unit forbids it to make Unix sockets, since with one it could ask systemd, D-Bus or a
container engine for all of root's rights. So the socket that it serves is systemd's; callers that
connect while the agent starts, or starts again, wait in its queue.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from credspec.errors import CredspecError, UsageError
from credspec.sockets.peers import peer_of

STORED: Final = "kdc-"
"""What the names begin with under which the service manager keeps the sockets of leases' KDCs."""

_FIRST_DESCRIPTOR: Final = 3
_REQUEST_SECONDS: Final = 0.5
_REQUEST_BYTES: Final = 1 << 20
_MOST_CALLERS: Final = 512


def stored_sockets() -> dict[str, list[socket.socket]]:
    """Return the sockets of leases' KDCs that the service manager kept over a restart, by lease.

    To be called before `inherited_listener`.
    """
    found: dict[str, list[socket.socket]] = {}
    for descriptor, name in _names(_passed_descriptors()):
        if name.startswith(STORED):
            os.set_inheritable(descriptor, False)
            found.setdefault(name.removeprefix(STORED), []).append(socket.socket(fileno=descriptor))
    return found


def inherited_listener(path: Path) -> socket.socket | None:
    """Return the listening socket that systemd passed to this process, None without one.

    `path` is where the configuration says that the agent listens; sockets of leases' KDCs are left.
    The variables that name the socket are removed, so that no child process takes it for its own.

    Raises:
        UsageError: `agent-socket-differs` if systemd's socket is at another path.
    """
    descriptors = [
        descriptor
        for descriptor, name in _names(_passed_descriptors())
        if not name.startswith(STORED)
    ]
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    found = []
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
        listener = socket.socket(fileno=descriptor)
        if listener.family == socket.AF_UNIX and listener.getsockname() == str(path):
            return listener
        found.append(str(listener.getsockname()))
        listener.detach()
    if found:
        raise UsageError.of(
            "agent-socket-differs",
            f"systemd listens at {', '.join(found)}"[:300],
            where="credspec-agent.socket",
            expected=f"{path}, as run_directory in the configuration says",
            remedy="set ListenStream= in a drop-in: systemctl edit credspec-agent.socket",
        )
    return None


def refuse_waiting_callers(error: CredspecError) -> None:
    """Answer callers who wait at systemd's socket why the agent does not start.

    Otherwise each would wait for its own deadline, to learn only that there was no answer. Root's
    calls are answered, since the text may quote the configuration; others are disconnected.
    """
    body = json.dumps(error.to_json()).encode()
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    for descriptor in _passed_descriptors():
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as listener:
            listener.setblocking(False)
            for _ in range(_MOST_CALLERS):
                caller, _address = listener.accept()
                with caller, suppress(OSError):
                    _answer(caller, head.encode() + body)


def _answer(caller: socket.socket, answer: bytes) -> None:
    if peer_of(caller).uid != 0:
        return
    # A request that is not read would reset the connection, and with it the answer.
    caller.settimeout(_REQUEST_SECONDS)
    request = caller.recv(_REQUEST_BYTES)
    while request and _is_incomplete(request):
        chunk = caller.recv(_REQUEST_BYTES)
        if not chunk:
            break
        request += chunk
    caller.sendall(answer)


def _is_incomplete(request: bytes) -> bool:
    head, end, body = request.partition(b"\r\n\r\n")
    if len(request) > _REQUEST_BYTES:
        return False
    length = 0
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length" and value.strip().isdigit():
            length = int(value)
    return not end or len(body) < length


def _names(descriptors: Sequence[int]) -> Iterator[tuple[int, str]]:
    """Return descriptors with the names that the service manager gave them."""
    names = os.environ.get("LISTEN_FDNAMES", "").split(":") + [""] * len(descriptors)
    return zip(descriptors, names, strict=False)


def _passed_descriptors() -> range:
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return range(0)
    count = os.environ.get("LISTEN_FDS", "")
    return range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + (int(count) if count.isdecimal() else 0))
