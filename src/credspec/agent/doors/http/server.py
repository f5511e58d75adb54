"""The API on its socket: who may connect, and what a connection may cost.

Connections are accepted by `credspec.sockets.admission`; those who may not use the agent are
answered and closed before a byte of theirs is read. The others have a few seconds for each head.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from credspec.agent.doors.http.api import Api
from credspec.agent.doors.http.passed_sockets import PassingSocket
from credspec.config.policy import PolicyInForce, caller_refused
from credspec.errors import CredspecError, TooManyRequestsError
from credspec.http.connection import ConnectionTimes, HttpConnection
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
_ANSWER_SECONDS: Final = 30.0
_MAX_HEAD_BYTES: Final = 16 * 1024
_REASONS: Final = {403: "Forbidden", 429: "Too Many Requests", 503: "Service Unavailable"}


@asynccontextmanager
async def serving_http(
    api: Api, listener: socket.socket, policy: PolicyInForce
) -> AsyncIterator[None]:
    """Serve the API on a listening socket while the block runs."""
    serving: dict[asyncio.Task[None], HttpConnection | None] = {}
    times = ConnectionTimes(
        head=_HEAD_SECONDS,
        unread_body=_UNREAD_BODY_SECONDS,
        answer=_ANSWER_SECONDS,
        head_bytes=_MAX_HEAD_BYTES,
    )

    async def serve(connection: PassingSocket, slot: Slot) -> None:
        reader, writer = await _opened(connection, slot)
        http = HttpConnection(reader, writer, api.answer, api.refuse, times)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - it runs as one
        serving[task] = http
        await http.serve()

    def connected(connection: socket.socket, slot: Slot) -> None:
        task = asyncio.get_running_loop().create_task(serve(PassingSocket(connection), slot))
        serving[task] = None
        task.add_done_callback(serving.pop)

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
        answering = [task for task, http in serving.items() if http and not http.is_idle]
        if answering:
            await asyncio.wait(answering, timeout=_SHUTDOWN_SECONDS)
        left = list(serving)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


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


async def _opened(
    connection: PassingSocket, slot: Slot
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    try:
        transport, _ = await loop.connect_accepted_socket(
            lambda: _Counted(protocol, slot, connection), connection
        )
    except BaseException:
        connection.drop()
        connection.close()
        slot.release()
        raise
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


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

    def eof_received(self) -> bool:
        self._inner.eof_received()
        # Who has gone is not kept a slot for, however long the answer takes.
        return False

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
