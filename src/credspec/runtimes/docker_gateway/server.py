"""The gateway's server: one request a connection, forwarded and then left alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import resource
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from credspec.agent.service_notification import keep_watchdog_quiet, notify
from credspec.agent.signals import handle_signals
from credspec.errors import CredspecError
from credspec.runtimes.docker_gateway.connection import Connection
from credspec.runtimes.docker_gateway.create_request import (
    RUNTIME,
    ApiVersion,
    CreateBody,
    CreateTarget,
    parse_target,
    parse_version,
)
from credspec.runtimes.docker_gateway.http_head import (
    END,
    MAX_HEAD_BYTES,
    MalformedHeadError,
    RequestHead,
)
from credspec.runtimes.docker_gateway.listening_socket import listening
from credspec.runtimes.docker_gateway.tunnel import end_politely, tunnel
from credspec.spec.reference import SpecReference
from credspec.spec.spec_directory import SpecDirectory, load

_MAX_BODY_BYTES: Final = 16 * 1024 * 1024
MAX_CONNECTIONS: Final = 1024
"""More clients than this at a time wait until another one ends."""
_HEAD_SECONDS: Final = 60.0
_BODY_SECONDS: Final = 60.0
_MAX_LINE_BYTES: Final = 8 * 1024
_CHUNK_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{1,8}")
_PING_SECONDS: Final = 10.0
_ANSWER_SECONDS: Final = 10.0
_PING: Final = b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n"
_SPARE_DESCRIPTORS: Final = 64
# A client, the daemon, and now and then a question to the daemon or a file.
_DESCRIPTORS_EACH: Final = 3
_PAUSE_SECONDS: Final = 0.1
_SERVER_ERROR: Final = 500


class _Refusal(Exception):  # noqa: N818 - an answer, not a fault
    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message


class DockerGateway:
    """Forwards connections to dockerd; `say` receives a line for each thing worth knowing."""

    def __init__(
        self,
        upstream: Path,
        spec_directory: Path,
        *,
        say: Callable[[str], None] = lambda _: None,
        limit: int = MAX_CONNECTIONS,
        runtime: str = RUNTIME,
    ) -> None:
        self._upstream = upstream
        self._specs = SpecDirectory(spec_directory)
        self._say = say
        self._runtime = runtime
        self._connections: set[asyncio.Task[None]] = set()
        self._limit = limit
        self._places = asyncio.Semaphore(limit)

    async def serve(self, listener: socket.socket) -> None:
        """Serve until cancelled; open connections are then closed."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                if self._places.locked():
                    self._say(f"{self._limit} connections are open; new clients wait")
                await self._places.acquire()
                client = await self._accept(listener)
                task = loop.create_task(self._connected(Connection(client)))
                self._connections.add(task)
                task.add_done_callback(self._ended)
        finally:
            running = list(self._connections)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> socket.socket:
        while True:
            try:
                client, _ = await asyncio.get_running_loop().sock_accept(listener)
            except OSError as error:
                # Such as no more open files in the whole system: others may close some.
                say_on_standard_error(f"cannot accept connections: {error.strerror}")
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                return client

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._connections.discard(task)
        self._places.release()
        error = None if task.cancelled() else task.exception()
        if error is not None:
            say_on_standard_error(f"internal error: {error!r} [internal]")

    async def _connected(self, client: Connection) -> None:
        with client:
            method = ""
            try:
                head = await _read_head(client)
                method = head.method
                await self._forward(head, client)
            except _Refusal as refusal:
                say = self._say if refusal.status < _SERVER_ERROR else say_on_standard_error
                say(f"refused: {' '.join(refusal.message.splitlines())}")
                await _answer(client, refusal, to_head=method == "HEAD")
            except (OSError, EOFError):
                pass  # one side has gone; the other learns it by the close

    async def _forward(self, head: RequestHead, client: Connection) -> None:
        target = parse_target(head.method, head.target)
        body = b""
        if target is not None:
            head, body = await self._rewritten(head, target, client)
            client.take_rest()  # another request; it comes again on a new connection
        # One request a connection: then nothing of what follows needs to be understood. Also with
        # an upgrade, which the daemon may refuse and then wait for the next request.
        head = head.with_fields(Connection=_closing(head))
        with await self._dial() as daemon:
            await tunnel(client.socket, daemon.socket, head.pack() + body + client.take_rest())

    async def _rewritten(
        self, head: RequestHead, target: CreateTarget, client: Connection
    ) -> tuple[RequestHead, bytes]:
        """Return a create request as the daemon takes it; without a spec, byte for byte."""
        original = await _read_body(head, client)
        forwarded = head.with_fields(
            Content_Length=str(len(original)), Transfer_Encoding=None, Expect=None
        )
        try:
            create = CreateBody.unpack(original, self._runtime)
            if create is None:
                return forwarded, original
            await asyncio.to_thread(self._check, create.reference)
            body = create.pack(target.version or await self._daemon_version())
        except CredspecError as error:
            raise _Refusal(400, "Bad Request", str(error)) from None
        return forwarded.with_fields(Content_Length=str(len(body))), body

    def _check(self, reference: SpecReference) -> None:
        load(reference, self._specs)

    async def _daemon_version(self) -> ApiVersion:
        with await self._dial() as daemon:
            try:
                async with asyncio.timeout(_PING_SECONDS):
                    await daemon.send(_PING)
                    answer = await daemon.read_until(END, MAX_HEAD_BYTES)
            except (OSError, EOFError, asyncio.LimitOverrunError):
                answer = b""
        for line in answer.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"api-version":
                return parse_version(value.decode("latin-1")) or (1, 0)
        return (1, 0)

    async def _dial(self) -> Connection:
        try:
            return await Connection.dial(self._upstream)
        except OSError as error:
            reason = error.strerror or "not in time"
            raise _Refusal(
                502,
                "Bad Gateway",
                f"credspec: dockerd does not answer at {self._upstream} ({reason}); "
                "start it, or name its socket with --upstream [docker-unreachable]",
            ) from None


async def run(
    listen: Path,
    upstream: Path,
    spec_directory: Path,
    *,
    group: str | None,
    say: Callable[[str], None],
    runtime: str = RUNTIME,
) -> None:
    """Serve on the socket `listen` until SIGTERM or SIGINT; the socket is removed at the end.

    `group` (a name or number) owns the socket; None for the group of dockerd's own.

    Raises:
        CredspecError: as `credspec.runtimes.docker_gateway.listening_socket.listening`.
    """
    with listening(listen, group, upstream) as listener:
        limit = affordable_connections(MAX_CONNECTIONS)
        gateway = DockerGateway(upstream, spec_directory, say=say, limit=limit, runtime=runtime)
        serving = asyncio.create_task(gateway.serve(listener))
        handle_signals(serving.cancel)
        say(f"listening on {listen}, forwarding to {upstream}")
        watchdog = asyncio.create_task(keep_watchdog_quiet())
        notify("READY=1", f"STATUS=forwarding to {upstream}")
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        notify("STOPPING=1")
        watchdog.cancel()


def affordable_connections(wanted: int) -> int:
    """Raise the limit of open files as far as `wanted` needs; return how many that allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted * _DESCRIPTORS_EACH + _SPARE_DESCRIPTORS
    if soft < needed:
        soft = min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(wanted, (soft - _SPARE_DESCRIPTORS) // _DESCRIPTORS_EACH))


def _closing(head: RequestHead) -> str:
    options = [o.strip() for value in head.values("Connection") for o in value.split(",")]
    kept = [o for o in options if head.upgrades and o.lower() not in {"", "close", "keep-alive"}]
    return ", ".join([*kept, "close"])


async def _read_head(client: Connection) -> RequestHead:
    try:
        async with asyncio.timeout(_HEAD_SECONDS):
            return RequestHead.unpack(await client.read_until(END, MAX_HEAD_BYTES))
    except asyncio.LimitOverrunError:
        raise _Refusal(431, "Request Header Fields Too Large", "request head too large") from None
    except MalformedHeadError:
        raise _Refusal(400, "Bad Request", "malformed request head") from None
    except TimeoutError:
        raise _Refusal(408, "Request Timeout", "no request in time") from None


async def _read_body(head: RequestHead, client: Connection) -> bytes:
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            length = _body_length(head)
            if head.values("Expect"):
                await client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            if length is None:
                return await _read_chunks(client)
            return await client.read_exactly(length)
    except (ValueError, asyncio.LimitOverrunError):
        raise _Refusal(400, "Bad Request", "malformed request body") from None
    except TimeoutError:
        raise _Refusal(408, "Request Timeout", "no request body in time") from None


def _body_length(head: RequestHead) -> int | None:
    """Return the body's length, None for a chunked one; ValueError if head contradicts itself."""
    codings = [value.lower() for value in head.values("Transfer-Encoding")]
    lengths = set(head.values("Content-Length"))
    if codings:
        if codings != ["chunked"] or lengths:
            raise ValueError
        return None
    length = lengths.pop() if lengths else "0"
    if lengths or not (length.isascii() and length.isdigit()):
        raise ValueError
    if int(length) > _MAX_BODY_BYTES:
        raise _too_large()
    return int(length)


async def _read_chunks(client: Connection) -> bytes:
    body = bytearray()
    while True:
        line = await client.read_until(b"\r\n", _MAX_LINE_BYTES)
        digits = line.partition(b";")[0].strip()
        if _CHUNK_SIZE.fullmatch(digits) is None:
            raise ValueError
        size = int(digits, 16)
        if len(body) + size > _MAX_BODY_BYTES:
            raise _too_large()
        if size == 0:
            while await client.read_until(b"\r\n", _MAX_LINE_BYTES) != b"\r\n":
                pass  # trailers mean nothing here
            return bytes(body)
        body += await client.read_exactly(size)
        if await client.read_exactly(2) != b"\r\n":
            raise ValueError


def _too_large() -> _Refusal:
    return _Refusal(413, "Content Too Large", "request body too large")


async def _answer(client: Connection, refusal: _Refusal, *, to_head: bool) -> None:
    body = json.dumps({"message": refusal.message}).encode() + b"\n"
    head = (
        f"HTTP/1.1 {refusal.status} {refusal.reason}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with contextlib.suppress(OSError):
        async with asyncio.timeout(_ANSWER_SECONDS):
            await client.send(head.encode() + (b"" if to_head else body))
        await end_politely(client.socket)


def say_on_standard_error(line: str) -> None:
    """Write a line for people who watch the gateway."""
    sys.stderr.write(f"credspec docker-gateway: {line}\n")
    sys.stderr.flush()
