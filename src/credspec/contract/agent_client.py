"""One question to the agent on its socket, for what starts at every container's start.

Standard library only; commands use `credspec.api_client`, which raises what the agent answered.
"""

from __future__ import annotations

import _socket
import sys

from credspec.contract.errors import NotYetError, ShimError
from credspec.contract.start_wait import has_just_booted

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself costs milliseconds
    from collections.abc import Sequence
    from typing import Any

_AGENT_SECONDS = 60.0  # longer than the agent's own deadline, so that its reason arrives
_ENOENT, _EACCES, _EPIPE = 2, 13, 32
_ECONNRESET, _ECONNREFUSED = 104, 111
# No agent, none yet, or one that goes just now.
_NO_AGENT = frozenset({_ENOENT, _EPIPE, _ECONNRESET, _ECONNREFUSED})
_LONG_BYTES = 8 if sys.maxsize > 2**32 else 4


def ask_agent(
    agent_socket: str,
    method: str,
    path: str,
    body: dict[str, Any] | None,
    *,
    seconds: float | None = None,
    descriptors: Sequence[int] = (),
) -> dict[str, Any]:
    """Ask the agent; HTTP/1.0, so that the end of the connection is the end of the answer.

    `descriptors` are passed along; they stay open here.

    Raises:
        NotYetError: no agent is there, it does not answer, or it says when to ask again.
        ShimError: what else the agent answered.
    """
    seconds = _AGENT_SECONDS if seconds is None else seconds
    payload = b""
    if body is not None:
        from credspec.contract import c_json

        payload = c_json.dumps(body)
    head = (
        f"{method} {path} HTTP/1.0\r\nHost: credspec\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(payload)}\r\n\r\n"
    )
    connection = _socket.socket(_socket.AF_UNIX)
    try:
        # Not by settimeout yet, with which a queue that is full would be an error at once.
        connection.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, _timeval(seconds))
        connection.connect(agent_socket)
        connection.settimeout(seconds)
        answer = _exchange(connection, head.encode() + payload, descriptors)
    except (BlockingIOError, TimeoutError):
        raise NotYetError(
            "agent-timeout",
            f"credspec agent: no answer within {seconds:.0f} s at {agent_socket}; look at its log",
        ) from None
    except OSError as error:
        may_pass = error.errno in _NO_AGENT or (error.errno == _EACCES and has_just_booted())
        kind = NotYetError if may_pass else ShimError
        raise kind(
            "agent-unreachable",
            f"credspec agent: not reachable at {agent_socket} ({error.strerror}); "
            "start it with `systemctl start credspec-agent` or `credspec agent`",
        ) from None
    finally:
        connection.close()
    header, _, content = answer.partition(b"\r\n\r\n")
    status = header[9:12]
    if status == b"204":
        return {}
    from credspec.contract import c_json

    try:
        document = c_json.loads(content)
    except ValueError:
        if status.startswith(b"2"):
            raise NotYetError(
                "agent-answer", "credspec agent: its answer ended early; look at its log"
            ) from None
        document = {}
    if not status.startswith(b"2") or not isinstance(document, dict):
        raise _refusal(document, status.decode("ascii", "replace"), _retry_after(header))
    return document


def _refusal(document: object, status: str, retry_after: float | None) -> ShimError:
    """Return the error of a problem document; of several problems, with the code of the last."""
    found = document if isinstance(document, dict) else {}
    text = str(found.get("detail") or f"credspec agent: answered {status}")
    try:
        code = str(found["problems"][-1]["code"])
    except (LookupError, TypeError):
        code = "agent-answer"
    text = text.removesuffix(f" [{code}]")
    return ShimError(code, text) if retry_after is None else NotYetError(code, text, retry_after)


def _retry_after(header: bytes) -> float | None:
    """Return after how many seconds to ask again (RFC 9110, 10.2.3), None if that is no use."""
    for line in header.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"retry-after" and value.strip().isdigit():
            return float(value)
    return None


def _timeval(seconds: float) -> bytes:
    """Return a timeval of socket(7): two longs."""
    size = _LONG_BYTES
    return int(seconds).to_bytes(size, sys.byteorder) + (0).to_bytes(size, sys.byteorder)


def _exchange(connection: _socket.socket, request: bytes, descriptors: Sequence[int]) -> bytes:
    answer = bytearray()
    try:
        if descriptors:
            passed = b"".join(number.to_bytes(4, sys.byteorder) for number in descriptors)
            rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, passed)]
            request = request[connection.sendmsg([request], rights) :]
        connection.sendall(request)
    except BrokenPipeError:
        pass  # a refusal may come, and the end with it, before the request was read
    try:
        while chunk := connection.recv(65536):
            answer += chunk
    except ConnectionResetError:
        pass  # it did not read all of the request, and says why
    if not answer:
        raise ConnectionResetError(_ECONNRESET, "it closed the connection")
    return bytes(answer)
