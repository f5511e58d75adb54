"""The API on its socket: who may connect, and what a connection may cost.

Connections are accepted by `credspec.sockets.admission`; those who may not use the agent are
answered and closed before a byte of theirs is read. aiohttp serves the others, with a few seconds
for each head.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from credspec.agent.doors.http.passed_sockets import PassingSocket
from credspec.config.policy import PolicyInForce, caller_refused
from credspec.errors import CredspecError, TooManyRequestsError
from credspec.service.events import Event, emit
from credspec.sockets.admission import (
    Admission,
    AdmissionReport,
    ConnectionLimits,
    Refusal,
    Slot,
    affordable_connections,
)
from credspec.sockets.connection_listener import ConnectionListener
from credspec.sockets.peers import Peer

MAX_CONNECTIONS: Final = 2048
"""How many connections there are at a time, if the limit of open files allows it."""

# The heads of more would be parsed in one turn of the event loop if all were ready.
_SERVED_OF_A_USER: Final = 32
_HEAD_SECONDS: Final = 5.0
_UNREAD_BODY_SECONDS: Final = 2.0
_SHUTDOWN_SECONDS: Final = 2.0
_MAX_LINE_BYTES: Final = 4096
_MAX_FIELD_BYTES: Final = 4096
_MAX_FIELDS: Final = 64
_REASONS: Final = {403: "Forbidden", 429: "Too Many Requests", 503: "Service Unavailable"}


@asynccontextmanager
async def serving_http(
    api: web.Application, listener: socket.socket, policy: PolicyInForce
) -> AsyncIterator[None]:
    """Serve the API on a listening socket while the block runs."""
    runner = web.AppRunner(
        api,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=_SHUTDOWN_SECONDS,
        # Also how long the first head of a connection may take.
        keepalive_timeout=_HEAD_SECONDS,
        lingering_time=_UNREAD_BODY_SECONDS,
        max_line_size=_MAX_LINE_BYTES,
        max_field_size=_MAX_FIELD_BYTES,
        max_headers=_MAX_FIELDS,
        auto_decompress=False,
        logger=_silent_logger(),
    )
    await runner.setup()
    server = runner.server
    assert server is not None  # noqa: S101 - set up, it has one
    opening: set[asyncio.Task[None]] = set()

    def connected(connection: socket.socket, slot: Slot) -> None:
        passing = PassingSocket(connection)
        task = asyncio.get_running_loop().create_task(_open(server, passing, slot))
        opening.add(task)
        task.add_done_callback(opening.discard)

    limit = affordable_connections(MAX_CONNECTIONS)
    admission = Admission(
        ConnectionLimits(total=limit, active=_SERVED_OF_A_USER),
        lambda peer: policy.allows_user(peer.uid, os.geteuid()),
    )
    accepting = ConnectionListener(
        listener, connected, admission, report=report_admission, answer=refusal_response
    )
    accepting.start()
    try:
        yield
    finally:
        accepting.close()
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        await runner.cleanup()


def report_admission(report: AdmissionReport) -> None:
    """Emit an event for what `ConnectionListener` reports."""
    more = {"suppressed": report.suppressed} if report.suppressed else {}
    if report.refusal is None and report.reason:
        emit(Event.CONNECTIONS_NOT_ACCEPTED, error=report.reason, **more)
    elif report.peer is None:
        emit(Event.CALLER_REFUSED, error="other users were refused", **more)
    else:
        refusal = report.refusal.value if report.refusal else ""
        if report.peer.pid >= 0 and not report.suppressed:
            more["pid"] = report.peer.pid
        emit(Event.CALLER_REFUSED, uid=report.peer.uid, error=refusal, **more)


def refusal_response(peer: Peer, refusal: Refusal) -> bytes:
    """Return an HTTP response, with a problem document, for a connection that is refused."""
    error: CredspecError
    if refusal is Refusal.NOT_PERMITTED:
        error = caller_refused(peer.uid)
    else:
        error = TooManyRequestsError.of(
            "connections-too-many",
            f"user {peer.uid} has too many open connections"
            if refusal is Refusal.TOO_MANY
            else "too many connections are open",
            where="agent socket",
            remedy="close some, then try again",
        )
    content = json.dumps(error.to_json()).encode()
    head = (
        f"HTTP/1.1 {error.http_status} {_REASONS[error.http_status]}\r\n"
        "Content-Type: application/problem+json\r\n"
        f"Content-Length: {len(content)}\r\n"
        f"{'Retry-After: 1' if refusal is not Refusal.NOT_PERMITTED else 'Cache-Control: no-store'}"
        "\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + content


async def _open(
    server: Callable[[], asyncio.Protocol], connection: PassingSocket, slot: Slot
) -> None:
    try:
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: _Counted(server(), slot, connection), connection
        )
    except BaseException:
        connection.drop()
        connection.close()
        slot.release()
        raise


class _Counted(asyncio.Protocol):
    """Hands everything on to a protocol, and gives the slot back when the connection is lost.

    What was passed with the connection and not taken is closed then.
    """

    def __init__(self, inner: asyncio.Protocol, slot: Slot, connection: PassingSocket) -> None:
        self._inner = inner
        self._slot = slot
        self._connection = connection
        # Called for each piece of data.
        self.data_received = inner.data_received  # type: ignore[method-assign]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._slot.release()
        self._connection.drop()
        self._inner.connection_lost(exc)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()


def _silent_logger() -> logging.Logger:
    """Return a logger for aiohttp: it would log a traceback for each malformed request."""
    logger = logging.getLogger("credspec.agent.http")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    logger.setLevel(logging.CRITICAL)
    return logger
