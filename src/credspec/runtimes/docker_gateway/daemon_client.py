"""Connections to dockerd, and the gateway's own questions to it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from credspec.runtimes.docker_gateway.body_memory import Share
from credspec.runtimes.docker_gateway.connection import Connection
from credspec.runtimes.docker_gateway.create_request import ApiVersion, parse_version
from credspec.runtimes.docker_gateway.daemon_answer import read_answer
from credspec.runtimes.docker_gateway.http_head import END, MAX_HEAD_BYTES
from credspec.runtimes.docker_gateway.refusal import Refusal

_PING_SECONDS: Final = 10.0
_QUESTION_SECONDS: Final = 30.0
_PING: Final = b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n"
_OLDEST: Final = (1, 0)


class DaemonClient:
    """Asks dockerd at its socket `upstream`."""

    def __init__(self, upstream: Path) -> None:
        self._upstream = upstream

    async def dial(self) -> Connection:
        """Connect to dockerd.

        Raises:
            Refusal: `docker-unreachable`.
        """
        try:
            return await Connection.dial(self._upstream)
        except OSError as error:
            reason = error.strerror or "not in time"
            raise Refusal(
                502,
                "Bad Gateway",
                f"credspec: dockerd does not answer at {self._upstream} ({reason}); "
                "start it, or name its socket with --upstream [docker-unreachable]",
            ) from None

    async def version(self) -> ApiVersion:
        """Return the newest version of the API that dockerd knows; 1.0 if it does not answer."""
        with await self.dial() as daemon:
            try:
                async with asyncio.timeout(_PING_SECONDS):
                    await daemon.send(_PING)
                    answer = bytes(await daemon.read_until(END, MAX_HEAD_BYTES))
            except (OSError, EOFError, asyncio.LimitOverrunError):
                answer = b""
        for line in answer.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"api-version":
                return parse_version(value.decode("latin-1")) or _OLDEST
        return _OLDEST

    async def json(self, path: str, share: Share) -> bytearray | None:
        """Return dockerd's answer in JSON to a GET; None if there is no such, or not in time.

        Raises:
            Refusal: `docker-unreachable`.
            NoMemoryLeftError: there is no memory for it in time.
        """
        request = f"GET {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n"
        with await self.dial() as daemon:
            try:
                async with asyncio.timeout(_QUESTION_SECONDS):
                    await daemon.send(request.encode("latin-1"))
                    return (await read_answer(daemon, share)).body
            except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
                return None
