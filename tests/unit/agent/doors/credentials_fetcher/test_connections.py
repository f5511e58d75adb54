"""The front of gRPC's socket, with gRPC itself behind it and clients that speak HTTP/2 by hand."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc.aio
import pytest

from credspec.agent.audit import Caller
from credspec.agent.doors.credentials_fetcher import connections
from credspec.agent.doors.credentials_fetcher.connections import (
    CallerConnections,
    CallLimits,
    caller_of,
)
from credspec.sockets.listener import listen
from support.credentials_fetcher.http2_frames_by_hand import (
    DATA,
    END_STREAM,
    GOAWAY,
    GREETING,
    PING,
    PREFACE,
    WINDOW_UPDATE,
    begin_call,
    frame,
    message,
    whole_call,
)

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
LIMITS = CallLimits(handshake=0.3, request=0.3, idle=60.0, answer=5.0, notice=0.2)
NAME = "credentialsfetcher.CredentialsFetcherService"


class Service:
    """Answers with what it was asked, and knows who asked."""

    def __init__(self) -> None:
        self.callers: list[Caller | None] = []
        self.requests: list[bytes] = []
        self.secret = False
        self.served: Callable[[str, bool], None] = lambda *_: None
        self.hold = asyncio.Event()
        self.hold.set()

    async def answer(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        self.callers.append(caller_of(context.peer()))
        self.requests.append(request)
        self.served(context.peer(), self.secret)
        await self.hold.wait()
        return request

    def handlers(self) -> grpc.GenericRpcHandler:
        calls = {"HealthCheck": grpc.unary_unary_rpc_method_handler(self.answer)}
        return grpc.method_handlers_generic_handler(NAME, calls)


@asynccontextmanager
async def front(
    directory: Path, service: Service, limits: CallLimits = LIMITS
) -> AsyncIterator[Path]:
    inner, path = directory / "inner", directory / "front.sock"
    inner.mkdir()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((service.handlers(),))
    server.add_insecure_port(f"unix:{inner}/s")
    await server.start()
    carried = CallerConnections(inner / "s", limits)
    service.served = carried.served
    try:
        with listen(path, others=False) as listener:
            async with carried.accepting(listener, lambda _: True):
                yield path
            assert carried._carried == {}
            assert not carried._user_bytes
            assert (carried._shared_bytes, carried._total_bytes) == (0, 0)
    finally:
        await server.stop(0)


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def _unprivileged(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process's user counts as any other."""
    monkeypatch.setattr(connections, "is_privileged", lambda _: False)


async def connected(path: Path, data: bytes) -> Streams:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(data)
    return reader, writer


async def frames_of(reader: asyncio.StreamReader) -> AsyncIterator[tuple[int, int, int, bytes]]:
    """Type, flags, stream and payload of each frame until the end."""
    while True:
        try:
            header = await reader.readexactly(9)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        length = int.from_bytes(header[:3], "big")
        payload = await reader.readexactly(length)
        yield header[3], header[4], int.from_bytes(header[5:], "big"), payload


async def until_closed(reader: asyncio.StreamReader) -> list[tuple[int, int, int, bytes]]:
    async with asyncio.timeout(10):
        return [each async for each in frames_of(reader)]


async def next_goaway(frames: AsyncIterator[tuple[int, int, int, bytes]]) -> bytes:
    """Wait for a GOAWAY; return its payload."""
    async with asyncio.timeout(10):
        async for kind, _, _, payload in frames:
            if kind == GOAWAY:
                return payload
    raise AssertionError("no GOAWAY")


async def answered(reader: asyncio.StreamReader, stream: int) -> bytes:
    """Wait for a call's whole answer."""
    data = b""
    async with asyncio.timeout(10):
        async for kind, flags, of, payload in frames_of(reader):
            if of == stream and kind == DATA:
                data += payload
            if of == stream and kind != DATA and flags & END_STREAM:
                return data
    raise AssertionError(f"no answer, only {data!r}")


async def test_a_call_is_answered_and_its_caller_known(tmp_path: Path, service: Service) -> None:
    async with front(tmp_path, service) as path:
        reader, writer = await connected(path, GREETING + whole_call(1, "HealthCheck", b"one"))
        assert await answered(reader, 1) == message(b"one")
        writer.write(whole_call(3, "HealthCheck", b"x" * 30_000))
        assert await answered(reader, 3) == message(b"x" * 30_000)
        assert service.callers == [Caller(os.getuid(), os.getpid())] * 2
        assert list((tmp_path / "inner").iterdir()) == [tmp_path / "inner/s"]
        writer.close()


async def test_a_client_of_grpc_does_not_notice(tmp_path: Path, service: Service) -> None:
    """Its connection ends after each call, and it makes the next one by itself."""
    service.secret = True
    async with front(tmp_path, service) as path:
        async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
            call = channel.unary_unary(f"/{NAME}/HealthCheck")
            for number in range(20):
                assert await call(b"%d" % number, timeout=30) == b"%d" % number
            many = [call(b"%d" % number, timeout=30) for number in range(200)]
            assert await asyncio.gather(*many) == [b"%d" % number for number in range(200)]
        assert len(service.requests) == 220


async def test_after_a_secret_the_connection_ends_with_its_last_answer(
    tmp_path: Path, service: Service
) -> None:
    service.secret = True
    service.hold.clear()
    async with front(tmp_path, service, replace(LIMITS, notice=1.0)) as path:
        reader, writer = await connected(path, GREETING + whole_call(1, "HealthCheck", b"secret"))
        coming = frames_of(reader)
        said = [await next_goaway(coming)]
        # The client cannot have known when it sent this.
        writer.write(whole_call(3, "HealthCheck", b"secret"))
        said.append(await next_goaway(coming))
        # A call that begins now is left to the client's next connection.
        writer.write(whole_call(5, "HealthCheck", b"late"))
        await asyncio.sleep(0.05)
        service.hold.set()
        frames = [each async for each in coming]
        assert said == [b"\x7f\xff\xff\xff\0\0\0\0", b"\0\0\0\3\0\0\0\0"]
        ended = [stream for kind, flags, stream, _ in frames if kind == 1 and flags & END_STREAM]
        assert sorted(ended) == [1, 3]
        assert service.requests == [b"secret"] * 2
        writer.close()


async def test_a_call_that_never_reached_the_service_ends_the_connection(
    tmp_path: Path, service: Service
) -> None:
    async with front(tmp_path, service) as path:
        reader, writer = await connected(path, GREETING + whole_call(1, "Nothing", b"secret"))
        frames = await until_closed(reader)
        assert [payload for kind, _, _, payload in frames if kind == GOAWAY] == [
            b"\x7f\xff\xff\xff\0\0\0\0",
            b"\0\0\0\1\0\0\0\0",
        ]
        writer.close()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        PREFACE[:10],
        PREFACE,
        GREETING[:-1],
        GREETING + begin_call(1),
        GREETING + begin_call(1) + frame(DATA, message(bytes(1000))[:100], stream=1),
        GREETING + frame(PING, bytes(8))[:12],
    ],
    ids=["nothing", "half a preface", "a preface", "half settings", "headers", "data", "ping"],
)
async def test_who_does_not_go_on_is_given_up(
    tmp_path: Path, service: Service, data: bytes
) -> None:
    async with front(tmp_path, service) as path:
        reader, writer = await connected(path, data)
        await until_closed(reader)
        writer.close()
    assert service.requests == []


async def test_a_byte_now_and_then_is_no_request(tmp_path: Path, service: Service) -> None:
    async with front(tmp_path, service) as path:
        reader, writer = await connected(path, GREETING + begin_call(1))
        closed = asyncio.create_task(until_closed(reader))
        writer.write(frame(DATA, message(bytes(1000))[:10], stream=1))
        for _ in range(200):
            writer.write(frame(DATA, b"\0", stream=1))
            await asyncio.sleep(0.05)
            if closed.done():
                break
        assert closed.done()
        writer.close()


async def test_an_idle_connection_is_ended(tmp_path: Path, service: Service) -> None:
    async with front(tmp_path, service, replace(LIMITS, idle=0.3)) as path:
        reader, writer = await connected(path, GREETING + whole_call(1, "HealthCheck", b"one"))
        assert await answered(reader, 1) == message(b"one")
        writer.write(frame(PING, bytes(8)))
        frames = await until_closed(reader)
        assert [payload for kind, _, _, payload in frames if kind == GOAWAY] == [
            b"\0\0\0\1\0\0\0\0"
        ]
        writer.close()


async def test_a_call_under_way_is_not_idle(tmp_path: Path, service: Service) -> None:
    service.hold.clear()
    async with front(tmp_path, service, replace(LIMITS, idle=0.1, handshake=0.1)) as path:
        reader, writer = await connected(path, GREETING + whole_call(1, "HealthCheck", b"one"))
        await asyncio.sleep(0.5)
        service.hold.set()
        assert await answered(reader, 1) == message(b"one")
        writer.close()


@pytest.mark.usefixtures("_unprivileged")
async def test_a_users_frames_wait_and_the_loop_goes_on(tmp_path: Path, service: Service) -> None:
    limits = replace(LIMITS, frames=100.0, burst=50)
    async with front(tmp_path, service, limits) as path:
        reader, writer = await connected(path, GREETING + frame(WINDOW_UPDATE, b"\0\0\0\1") * 100)
        begin = asyncio.get_running_loop().time()
        await asyncio.sleep(0.1)
        writer.write(whole_call(1, "HealthCheck", b"one"))
        assert await answered(reader, 1) == message(b"one")
        assert asyncio.get_running_loop().time() - begin > 0.4
        writer.close()


@pytest.mark.usefixtures("_unprivileged")
async def test_frames_of_a_users_many_connections_are_looked_at_one_after_another(
    tmp_path: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: list[float] = []
    feed = connections.ClientFrames.feed

    def noted(frames: connections.ClientFrames, data: memoryview) -> bytes:
        times.append(asyncio.get_running_loop().time())
        return feed(frames, data)

    monkeypatch.setattr(connections.ClientFrames, "feed", noted)
    async with front(tmp_path, service, replace(LIMITS, frames=1000.0, burst=50)) as path:
        data = GREETING + frame(WINDOW_UPDATE, b"\0\0\0\1") * 100
        clients = [await connected(path, data) for _ in range(10)]
        async with asyncio.timeout(20):
            while len(times) < len(clients):
                await asyncio.sleep(0.01)
        # Each owes a tenth of a second before the next one has its turn.
        assert times[9] - times[0] > 0.8
        for _, writer in clients:
            writer.close()


@pytest.mark.usefixtures("_unprivileged")
@pytest.mark.parametrize("limit", ["user_bytes", "shared_bytes"])
async def test_requests_of_too_many_bytes_at_a_time_are_refused(
    tmp_path: Path, service: Service, limit: str
) -> None:
    limits = replace(LIMITS, request=20.0, **{limit: 100_000})
    async with front(tmp_path, service, limits) as path:
        half = begin_call(1) + frame(DATA, message(bytes(60_000))[:16_384], stream=1) * 3
        clients = [await connected(path, GREETING + half) for _ in range(3)]
        closed = [asyncio.create_task(until_closed(reader)) for reader, _ in clients]
        done, _ = await asyncio.wait(closed, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        [frames] = [task.result() for task in done]
        assert [payload[4:] for kind, _, _, payload in frames if kind == GOAWAY] == [b"\0\0\0\x0b"]
        # What it had is there for others again.
        reader, writer = await connected(path, GREETING + whole_call(1, "HealthCheck", b"one"))
        assert await answered(reader, 1) == message(b"one")
        for _, each in (*clients, (reader, writer)):
            each.close()
        await asyncio.gather(*closed)


async def test_a_client_that_goes_ends_its_call(tmp_path: Path, service: Service) -> None:
    service.hold.clear()
    async with front(tmp_path, service) as path:
        _, writer = await connected(path, GREETING + whole_call(1, "HealthCheck", b"one"))
        while not service.requests:
            await asyncio.sleep(0.01)
        writer.close()
        await asyncio.sleep(0.1)
    assert service.requests == [b"one"]
