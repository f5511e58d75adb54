"""A client of the agent's API, for commands and tests."""

from __future__ import annotations

import http.client
import json
import math
import os
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from credspec.errors import AgentNotPermittedError, AgentUnreachableError, CredspecError

_SECONDS: Final = 60.0


class AgentClient:
    """Speaks HTTP to the agent on its Unix socket; each call is one connection."""

    def __init__(self, agent_socket: Path, *, seconds: float = _SECONDS) -> None:
        self._socket = agent_socket
        self._seconds = seconds

    def get(self, path: str) -> Any:
        """Return what a resource answers; raises as `request`."""
        return self.request("GET", path)

    def get_text(self, path: str) -> str:
        """Return what a resource answers that is no JSON; raises as `request`."""
        return self._content("GET", path).decode("utf-8", "replace")

    def request(self, method: str, path: str, body: object = None) -> Any:
        """Send a request and return the answer's JSON document, None if it has none.

        Raises:
            AgentUnreachableError: `agent-unreachable`.
            AgentNotPermittedError: `agent-not-permitted`.
            CredspecError: what the agent answered, with its class, codes and `response_status`.
        """
        content = self._content(method, path, body)
        return json.loads(content) if content else None

    def _content(self, method: str, path: str, body: object = None) -> bytes:
        connection = _UnixConnection(self._socket, self._seconds)
        payload = None if body is None else json.dumps(body)
        try:
            with suppress(BrokenPipeError):  # it has answered already, without reading
                connection.request(method, path, payload, {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read()
        except PermissionError:
            raise AgentNotPermittedError.of(
                "agent-not-permitted",
                f"user {os.geteuid()} may not use the agent",
                where=str(self._socket),
                remedy="run it as root, or let root add the user to users under [policy] in the "
                "agent's configuration",
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise AgentUnreachableError.of(
                "agent-unreachable",
                f"the agent does not answer ({error})",
                where=str(self._socket),
                remedy="start it with `systemctl start credspec-agent` or `credspec agent`",
            ) from None
        finally:
            connection.close()
        if response.status >= http.client.BAD_REQUEST:
            document = json.loads(content) if content else None
            failure = CredspecError.from_json(document if isinstance(document, dict) else {})
            after = response.getheader("Retry-After", "")
            failure.retry_after = int(after) if after.isdecimal() else None
            failure.response_status = response.status
            raise failure
        return content


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__("credspec", timeout=seconds)
        self._path = path
        self._seconds = seconds

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        # Not by settimeout, with which a queue that is full would be an error at once.
        seconds = math.ceil(self._seconds)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", seconds, 0))
        self.sock.connect(str(self._path))
        self.sock.settimeout(self._seconds)
