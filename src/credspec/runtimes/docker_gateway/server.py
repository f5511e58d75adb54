"""The gateway's server: one request a connection, forwarded and then left alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from credspec.errors import CredspecError, InvalidSpecError, UsageError
from credspec.runtimes.docker_gateway.create_request import (
    ApiVersion,
    CreateTarget,
    add_carrier,
    pack_body,
    parse_target,
    parse_version,
    take_reference,
    unpack_body,
)
from credspec.runtimes.docker_gateway.http_head import (
    END,
    MAX_HEAD_BYTES,
    MalformedHeadError,
    RequestHead,
)
from credspec.runtimes.docker_gateway.tunnel import CHUNK, tunnel
from credspec.spec.reference import SpecReference
from credspec.spec.spec_directory import SpecDirectory, load

_MAX_BODY_BYTES: Final = 16 * 1024 * 1024
_MAX_CONNECTIONS: Final = 1024
_HEAD_SECONDS: Final = 60.0
_BODY_SECONDS: Final = 60.0
# Where the daemon on Windows has a text of its own, it stands alone, as there.
_MOBY_CODES: Final = {"spec-reference-invalid", "spec-path-absolute", "spec-path-outside"}

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Refusal(Exception):  # noqa: N818 - an answer, not a fault
    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message


class DockerGateway:
    """Forwards connections to dockerd; `say` receives a line for each thing worth knowing."""

    def __init__(
        self, upstream: Path, spec_directory: Path, *, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self._upstream = upstream
        self._specs = SpecDirectory(spec_directory)
        self._say = say
        self._connections: set[asyncio.Task[None]] = set()

    async def serve(self, listener: socket.socket) -> None:
        """Serve until cancelled; open connections are then closed."""
        server = await asyncio.start_unix_server(self._connected, sock=listener, limit=CHUNK)
        try:
            await server.serve_forever()
        finally:
            server.close()
            for task in self._connections:
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio runs this in a task
        self._connections.add(task)
        try:
            if len(self._connections) > _MAX_CONNECTIONS:
                raise _Refusal(503, "Service Unavailable", "too many connections")
            await self._forward((reader, writer))
        except _Refusal as refusal:
            self._say(f"refused: {refusal.message}")
            await _answer(writer, refusal)
        except (OSError, asyncio.IncompleteReadError):
            pass  # one side has gone; the other learns it by the close
        except asyncio.CancelledError:
            pass  # the gateway stops
        finally:
            self._connections.discard(task)
            writer.close()

    async def _forward(self, client: _Streams) -> None:
        head = await _read_head(client[0])
        if head is None:
            return
        target = parse_target(head.method, head.target)
        body = b""
        if target is not None:
            head, body = await self._rewritten(head, target, client)
        if not head.upgrades:
            # One request a connection: then nothing of what follows needs to be understood.
            head = head.with_fields(Connection="close")
        daemon = await self._dial()
        try:
            daemon[1].write(head.pack() + body)
            await tunnel(client, daemon)
        finally:
            daemon[1].close()

    async def _rewritten(
        self, head: RequestHead, target: CreateTarget, client: _Streams
    ) -> tuple[RequestHead, bytes]:
        """Return a create request as the daemon takes it; without a spec, byte for byte."""
        original = await _read_body(head, client)
        forwarded = head.with_fields(
            Content_Length=str(len(original)), Transfer_Encoding=None, Expect=None
        )
        document = unpack_body(original)
        try:
            reference = take_reference(document)
            if reference is None or not isinstance(document, dict):
                return forwarded, original
            await asyncio.to_thread(self._check, reference)
            add_carrier(document, reference, target.version or await self._daemon_version())
        except CredspecError as error:
            raise _Refusal(400, "Bad Request", _docker_text(error)) from None
        body = pack_body(document)
        return forwarded.with_fields(Content_Length=str(len(body))), body

    def _check(self, reference: SpecReference) -> None:
        load(reference, self._specs)

    async def _daemon_version(self) -> ApiVersion:
        reader, writer = await self._dial()
        try:
            writer.write(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
            answer = await reader.read(MAX_HEAD_BYTES)
        finally:
            writer.close()
        for line in answer.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"api-version":
                return parse_version(value.decode("latin-1")) or (1, 0)
        return (1, 0)

    async def _dial(self) -> _Streams:
        try:
            return await asyncio.open_unix_connection(str(self._upstream), limit=CHUNK)
        except OSError as error:
            raise _Refusal(
                502,
                "Bad Gateway",
                f"credspec: dockerd does not answer at {self._upstream} ({error.strerror}); "
                "start it, or name its socket with --upstream [docker-unreachable]",
            ) from None


async def run(
    listen: Path,
    upstream: Path,
    spec_directory: Path,
    *,
    group: int | None,
    say: Callable[[str], None],
) -> None:
    """Serve on the socket `listen` until SIGTERM or SIGINT; the socket is removed at the end.

    `group` owns the socket; None for the group of dockerd's own.

    Raises:
        UsageError: `gateway-running`, `gateway-socket`.
    """
    listener = _listen(listen, group if group is not None else _group_of(upstream))
    gateway = DockerGateway(upstream, spec_directory, say=say)
    serving = asyncio.create_task(gateway.serve(listener))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, serving.cancel)
    say(f"listening on {listen}, forwarding to {upstream}")
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await serving
    finally:
        listen.unlink(missing_ok=True)  # noqa: ASYNC240 - a socket, on tmpfs


def _listen(path: Path, group: int) -> socket.socket:
    with socket.socket(socket.AF_UNIX) as other:
        try:
            other.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
        else:
            raise UsageError.of("gateway-running", "another gateway answers", where=str(path))
    listener = socket.socket(socket.AF_UNIX)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        # Nobody may connect before owner and mode are right.
        previous = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(previous)
        if group != os.getegid():
            shutil.chown(path, group=group)
        path.chmod(0o660)
    except OSError as error:
        listener.close()
        raise UsageError.of(
            "gateway-socket", error.strerror or str(error), where=str(path)
        ) from None
    listener.listen(512)
    return listener


def _group_of(path: Path) -> int:
    try:
        return path.stat().st_gid
    except OSError:
        return os.getegid()


async def _read_head(reader: asyncio.StreamReader) -> RequestHead | None:
    """Return the request's head; None if the client closed without one."""
    try:
        async with asyncio.timeout(_HEAD_SECONDS):
            data = await reader.readuntil(END)
        if len(data) > MAX_HEAD_BYTES:
            raise asyncio.LimitOverrunError("head", len(data))
        return RequestHead.unpack(data)
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError:
        raise _Refusal(431, "Request Header Fields Too Large", "request head too large") from None
    except MalformedHeadError:
        raise _Refusal(400, "Bad Request", "malformed request head") from None
    except TimeoutError:
        raise _Refusal(408, "Request Timeout", "no request in time") from None


async def _read_body(head: RequestHead, client: _Streams) -> bytes:
    reader, writer = client
    if head.values("Expect"):
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            if "chunked" in [v.lower() for v in head.values("Transfer-Encoding")]:
                return await _read_chunks(reader)
            lengths = set(head.values("Content-Length"))
            length = int(lengths.pop()) if lengths else 0
            if lengths or length < 0:
                raise ValueError
            if length > _MAX_BODY_BYTES:
                raise _too_large()
            return await reader.readexactly(length)
    except (ValueError, asyncio.LimitOverrunError):
        raise _Refusal(400, "Bad Request", "malformed request body") from None
    except TimeoutError:
        raise _Refusal(408, "Request Timeout", "no request body in time") from None


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while True:
        size = int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16)
        if size < 0:
            raise ValueError
        if len(body) + size > _MAX_BODY_BYTES:
            raise _too_large()
        if size == 0:
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass  # trailers mean nothing here
            return bytes(body)
        body += await reader.readexactly(size)
        await reader.readexactly(2)


def _too_large() -> _Refusal:
    return _Refusal(413, "Content Too Large", "request body too large")


def _docker_text(error: CredspecError) -> str:
    if isinstance(error, InvalidSpecError) and error.code in _MOBY_CODES:
        return error.problems[0].found
    return str(error)


async def _answer(writer: asyncio.StreamWriter, refusal: _Refusal) -> None:
    body = json.dumps({"message": refusal.message}).encode() + b"\n"
    head = (
        f"HTTP/1.1 {refusal.status} {refusal.reason}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with contextlib.suppress(OSError):
        writer.write(head.encode() + body)
        await writer.drain()


def say_on_standard_error(line: str) -> None:
    """Write a line for people who watch the gateway."""
    sys.stderr.write(f"credspec docker-gateway: {line}\n")
    sys.stderr.flush()
