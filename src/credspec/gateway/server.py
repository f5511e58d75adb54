"""The gateway's server: one request a connection, forwarded and then passed through."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from credspec.contract.names import RUNTIME
from credspec.gateway.body_memory import BodyMemory, NoMemoryLeftError, Share
from credspec.gateway.commit_request import parse_commit_target
from credspec.gateway.connection import Connection
from credspec.gateway.connection_turns import ConnectionTurns
from credspec.gateway.container_answers import ContainerAnswers
from credspec.gateway.create_request import CreateBody, CreateTarget, parse_target
from credspec.gateway.daemon_client import DaemonClient
from credspec.gateway.http_head import (
    END,
    MAX_HEAD_BYTES,
    MalformedHeadError,
    RequestHead,
    closing,
)
from credspec.gateway.inspect_answer import parse_inspect_target
from credspec.gateway.listening_socket import listening
from credspec.gateway.option_search import may_hold_spec
from credspec.gateway.refusal import Refusal, no_memory
from credspec.gateway.service_request import ServiceBody, ServiceTarget, parse_service_target
from credspec.gateway.user_threads import UserThreads
from credspec.service.notification import keep_watchdog_quiet, notify
from credspec.service.signals import handle_signals
from credspec.sockets.admission import (
    Admission,
    AdmissionReport,
    ConnectionLimits,
    Slot,
    affordable_connections,
)
from credspec.sockets.admission import Refusal as AdmissionRefusal
from credspec.sockets.connection_listener import ConnectionListener
from credspec.sockets.peers import Peer
from credspec.sockets.tunnel import end_politely, tunnel, wipe
from credspec.spec.spec_directory import SpecDirectory, load

_MAX_BODY_BYTES: Final = 16 * 1024 * 1024
# Of one with a credential spec, which is read: bytes, and values in its JSON.
_MAX_SPEC_BODY_BYTES: Final = 1024 * 1024
_MAX_VALUES: Final = 16 * 1024
MAX_CONNECTIONS: Final = 1024
"""More clients than this at a time wait until another one ends."""
_MOST_WAITING: Final = 4096
_HEAD_SECONDS: Final = 60.0
_BODY_SECONDS: Final = 60.0
_MAX_LINE_BYTES: Final = 8 * 1024
_CHUNK_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{1,8}")
_ANSWER_SECONDS: Final = 10.0
# A client, the daemon, a pipe in each direction, and at times a request to the daemon or a file.
_DESCRIPTORS_EACH: Final = 8
_READING_THREADS: Final = 4
_SPEC_TOO_LATE: Final = (
    "credspec: the credential spec could not be read within {}; "
    "see whether the spec directory answers [spec-read-timeout]"
)
_SERVER_ERROR: Final = 500


class DockerGateway:
    """Forwards connections to dockerd; `say` receives a line for each thing worth knowing."""

    def __init__(
        self,
        upstream: Path,
        spec_directory: Path,
        *,
        say: Callable[[str], None] = lambda _: None,
        limit: int = MAX_CONNECTIONS,
        waiting: int = _MOST_WAITING,
        runtime: str = RUNTIME,
    ) -> None:
        self._daemon = DaemonClient(upstream)
        self._specs = SpecDirectory(spec_directory)
        self._say = say
        self._runtime = runtime
        self._connections: set[asyncio.Task[None]] = set()
        self._limit = limit
        self._waiting = waiting
        self._turns = ConnectionTurns(limit)
        self._bodies = BodyMemory()
        self._reading = UserThreads(_READING_THREADS, "create-request", _SPEC_TOO_LATE)
        self._answers = ContainerAnswers(self._daemon, self._bodies, runtime)

    async def serve(self, listener: socket.socket) -> None:
        """Serve until cancelled; open connections are then closed."""
        admission = Admission(ConnectionLimits(total=self._limit + self._waiting))
        accepting = ConnectionListener(
            listener, self._accepted, admission, report=_report, answer=_answer_to_refused
        )
        accepting.start()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            accepting.close()
            running = list(self._connections)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _accepted(self, connection: socket.socket, slot: Slot) -> None:
        task = asyncio.get_running_loop().create_task(self._connected(Connection(connection), slot))
        self._connections.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._connections.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            say_on_standard_error(f"internal error: {type(error).__name__} [internal]")

    async def _connected(self, client: Connection, slot: Slot) -> None:
        try:
            with client:
                async with self._turns.turn(slot.peer):
                    await self._served(client, slot.peer)
        finally:
            slot.release()

    async def _served(self, client: Connection, peer: Peer) -> None:
        method = ""
        try:
            head = await _read_head(client)
            method = head.method
            await self._forward(head, client, peer)
        except Refusal as refusal:
            say = self._say if refusal.status < _SERVER_ERROR else say_on_standard_error
            say(f"refused: {' '.join(refusal.message.splitlines())}")
            await _answer(client, refusal, to_head=method == "HEAD")
        except (OSError, EOFError):
            pass  # one side has gone; the other learns it by the close

    async def _forward(self, head: RequestHead, client: Connection, peer: Peer) -> None:
        create = parse_target(head.method, head.target)
        commit = parse_commit_target(head.method, head.target)
        inspect = parse_inspect_target(head.method, head.target)
        if inspect is not None and not head.upgrades and not head.has_body:
            await self._answers.forward(head, inspect, client, peer)
            return
        service = parse_service_target(head.method, head.target)
        first: list[bytearray] = []
        with self._bodies.share(peer) as share:
            if create is not None or commit is not None or service is not None:
                body = await _read_body(head, client, share)
                if create is not None:
                    body = await self._create_body(body, create, peer, share)
                elif service is not None:
                    body = await self._service_body(body, service, peer, share)
                elif commit is not None:
                    body = await self._answers.commit_body(body, commit, peer, share)
                    head = head.with_fields(Content_Type="application/json")
                head = head.with_fields(
                    Content_Length=str(len(body)), Transfer_Encoding=None, Expect=None
                )
                first.append(body)
                del body
                client.take_rest()  # another request; it comes again on a new connection
            # One request a connection: then nothing of what follows needs to be understood. Also
            # with an upgrade, which the daemon may refuse and then wait for the next request.
            head = head.with_fields(Connection=closing(head))
            first[:0] = [bytearray(head.pack())]
            first.append(client.take_rest())
            with await self._daemon.dial() as daemon:
                await tunnel(client.socket, daemon.socket, first, sent=share.give_back)

    async def _create_body(
        self, body: bytearray, target: CreateTarget, peer: Peer, share: Share
    ) -> bytearray:
        """Return a create request's body as the daemon takes it; without a spec, byte for byte."""
        if not await may_hold_spec(body):
            return body
        _check_size(body)
        # What was read is overwritten there as soon as it is not needed.
        return await self._with_spec(body, target, peer, share)

    async def _service_body(
        self, body: bytearray, target: ServiceTarget, peer: Peer, share: Share
    ) -> bytearray:
        """Return a service's body as the daemon takes it; without a spec, byte for byte."""
        if not await may_hold_spec(body):
            return body
        _check_size(body)
        service = await self._reading.run(peer, lambda: ServiceBody.unpack(body))
        if service is None:
            return body
        config = None
        if service.config is not None:
            config = await self._answers.config(service.config, share)
        version = target.version or await self._daemon.version()
        image = await self._answers.image_environment(service.image, share)
        return bytearray(
            await self._reading.run(
                peer, lambda: service.pack(service.reference(config), version, image)
            )
        )

    async def _with_spec(
        self, body: bytearray, target: CreateTarget, peer: Peer, share: Share
    ) -> bytearray:
        """Return a body as the daemon takes it, if there is a spec in it; else as it is."""
        create = await self._reading.run(peer, lambda: self._read(body))
        if create is None:
            return body
        version = target.version or await self._daemon.version()
        image = await self._answers.image_environment(create.image, share)
        packed = await self._reading.run(peer, lambda: create.pack(version, image))
        wipe(body)
        return bytearray(packed)

    def _read(self, body: bytearray) -> CreateBody | None:
        create = CreateBody.unpack(body, self._runtime)
        if create is not None:
            load(create.reference, self._specs)
        return create


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
        CredspecError: as `credspec.gateway.listening_socket.listening`.
    """
    with listening(listen, group, upstream) as listener:
        limit, waiting = _affordable(MAX_CONNECTIONS, _MOST_WAITING)
        gateway = DockerGateway(
            upstream, spec_directory, say=say, limit=limit, waiting=waiting, runtime=runtime
        )
        serving = asyncio.create_task(gateway.serve(listener))
        handle_signals(serving.cancel)
        say(f"listening on {listen}, forwarding to {upstream}")
        watchdog = asyncio.create_task(keep_watchdog_quiet())
        notify("READY=1", f"STATUS=forwarding to {upstream}")
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        notify("STOPPING=1")
        watchdog.cancel()


def _affordable(served: int, waiting: int) -> tuple[int, int]:
    """Raise the limit of open files; return how many clients may be served, and how many wait."""
    wanted = served * _DESCRIPTORS_EACH + waiting
    descriptors = affordable_connections(wanted)
    served = max(1, served * descriptors // wanted)
    return served, max(0, descriptors - served * _DESCRIPTORS_EACH)


async def _read_head(client: Connection) -> RequestHead:
    try:
        async with asyncio.timeout(_HEAD_SECONDS):
            return RequestHead.unpack(bytes(await client.read_until(END, MAX_HEAD_BYTES)))
    except asyncio.LimitOverrunError:
        raise Refusal(431, "Request Header Fields Too Large", "request head too large") from None
    except MalformedHeadError:
        raise Refusal(400, "Bad Request", "malformed request head") from None
    except TimeoutError:
        raise Refusal(408, "Request Timeout", "no request in time") from None


async def _read_body(head: RequestHead, client: Connection, share: Share) -> bytearray:
    try:
        length = _body_length(head)
        # Before it is asked for.
        await share.grow_to(length or 0)
        async with asyncio.timeout(_BODY_SECONDS):
            if head.values("Expect"):
                await client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            if length is None:
                return await _read_chunks(client, share)
            return await client.read_exactly(length)
    except (ValueError, asyncio.LimitOverrunError):
        raise Refusal(400, "Bad Request", "malformed request body") from None
    except NoMemoryLeftError:
        raise no_memory() from None
    except TimeoutError:
        raise Refusal(408, "Request Timeout", "no request body in time") from None


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


async def _read_chunks(client: Connection, share: Share) -> bytearray:
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
            return body
        await share.grow_to(len(body) + size)
        body += await client.read_exactly(size)
        if await client.read_exactly(2) != b"\r\n":
            raise ValueError


def _too_large() -> Refusal:
    return Refusal(413, "Content Too Large", "request body too large")


def _check_size(body: bytearray) -> None:
    """Refuse a body that would take long to read, since it may hold the option."""
    values = sum(map(body.count, (b",", b":", b"[", b"{")))
    if len(body) > _MAX_SPEC_BODY_BYTES or values > _MAX_VALUES:
        raise Refusal(
            413,
            "Content Too Large",
            "request body too large for one with a credential spec: at most "
            f"{_MAX_SPEC_BODY_BYTES} bytes and {_MAX_VALUES} values [create-too-large]",
        )


async def _answer(client: Connection, refusal: Refusal, *, to_head: bool) -> None:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_ANSWER_SECONDS):
            await client.send(refusal.pack(to_head=to_head))
        await end_politely(client.socket)


def _report(report: AdmissionReport) -> None:
    say_on_standard_error(f"connections: {report}")


def _answer_to_refused(peer: Peer, refusal: AdmissionRefusal) -> bytes:
    del peer
    text = f"credspec: the client {refusal.value}; try again later [connections-number]"
    return Refusal(503, "Service Unavailable", text).pack()


def say_on_standard_error(line: str) -> None:
    """Write a line for people who watch the gateway."""
    sys.stderr.write(f"credspec docker-gateway: {line}\n")
    sys.stderr.flush()
