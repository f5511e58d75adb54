"""The sockets of a container's KDC: real ones, with clients that do what they like."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import struct
from collections.abc import AsyncIterator, Callable

import pytest

from credspec.agent.broker.kdc_sockets import KdcSockets, UnfitSocketsError

Serve = Callable[..., KdcSockets]


def pair() -> tuple[socket.socket, socket.socket]:
    tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
    tcp.bind(("127.0.0.1", 0))
    udp.bind(tcp.getsockname())
    tcp.listen(128)
    return tcp, udp


async def echo(data: bytes) -> bytes:
    return b"reply to " + data[:100]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    made: list[KdcSockets] = []

    def start(answer=echo, **more) -> KdcSockets:
        served = KdcSockets(*pair(), answer, lambda data: b"too big " + data, **more)
        served.start()
        made.append(served)
        return served

    yield start
    for served in made:
        served.close()


async def ask(served: KdcSockets, data: bytes, *, length: int | None = None) -> bytes:
    """Send a request, and return all that comes until the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(struct.pack(">I", len(data) if length is None else length) + data)
    try:
        async with asyncio.timeout(60):
            return await reader.read()
    finally:
        writer.close()


async def test_a_request_and_its_reply(serve: Serve) -> None:
    reply = await ask(serve(), b"one")
    assert reply == struct.pack(">I", 12) + b"reply to one"


async def test_its_descriptors_are_those_of_both_sockets(serve: Serve) -> None:
    """The service manager keeps copies of them over a restart."""
    served = serve()
    copies = [socket.socket(fileno=os.dup(each)) for each in served.descriptors]
    assert {each.type for each in copies} == {socket.SOCK_STREAM, socket.SOCK_DGRAM}
    assert {each.getsockname() for each in copies} == {("127.0.0.1", served.port)}
    for each in copies:
        each.close()


async def test_an_oversized_message_is_answered_and_not_read_to_its_end(serve: Serve) -> None:
    sizes = []

    async def answer(data: bytes) -> bytes:
        sizes.append(len(data))
        return b"no"

    served = serve(answer)
    assert (await ask(served, bytes(65_537), length=2**32 - 1))[4:] == b"no"
    assert sizes == [65_537]


async def test_truncated_and_silent_clients_hold_nobody_up(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("credspec.agent.broker.kdc_sockets._READ_SECONDS", 0.2)
    served = serve()
    silent = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(80)]
    for number, (_, writer) in enumerate(silent):
        writer.write(b"\0\0\0\xffabc"[: number % 8])
    assert (await ask(served, b"one"))[4:] == b"reply to one"
    async with asyncio.timeout(60):
        assert [await reader.read() for reader, _ in silent] == [b""] * len(silent)
    for _, writer in silent:
        writer.close()


async def test_a_client_that_goes_away(serve: Serve) -> None:
    served = serve()
    for sent in (b"", b"\0", b"\0\0\0\x05ab"):
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(sent)
        writer.transport.abort()
    assert (await ask(served, b"one"))[4:] == b"reply to one"


async def test_an_answer_that_fails_ends_one_connection(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    async def answer(data: bytes) -> bytes:
        if data == b"bad":
            raise ValueError("what it says is not logged")
        return data

    served = serve(answer)
    assert await ask(served, b"bad") == b""
    assert (await ask(served, b"good"))[4:] == b"good"
    shown = capsys.readouterr().err
    assert "internal-error" in shown
    assert "what it says" not in shown


async def test_a_flood_gets_its_share_and_others_theirs(serve: Serve) -> None:
    """The clock stands still, so that each lease has its burst and no more."""
    flooded, other = serve(clock=lambda: 0.0), serve(clock=lambda: 0.0)
    answered = 0

    async def flood() -> None:
        nonlocal answered
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", flooded.port)
            except OSError:
                continue
            writer.write(b"\0\0\0\1x")
            reply = await reader.read()
            answered += bool(reply)
            writer.close()

    tasks = [asyncio.create_task(flood()) for _ in range(100)]
    for _ in range(300):
        assert (await ask(other, b"one"))[4:] == b"reply to one"
    async with asyncio.timeout(60):
        while answered < 400:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0)
    assert answered == 400
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_waited_is_served_when_the_limit_allows(serve: Serve) -> None:
    now = 0.0
    served = serve(clock=lambda: now)
    replies = [asyncio.create_task(ask(served, b"x")) for _ in range(450)]
    async with asyncio.timeout(60):
        while sum(reply.done() for reply in replies) < 400:
            await asyncio.sleep(0.01)
        now = 10.0
        found = await asyncio.gather(*replies)
    assert all(reply[4:] == b"reply to x" for reply in found)


async def test_datagrams_lead_to_tcp(serve: Serve) -> None:
    served = serve()
    loop = asyncio.get_running_loop()
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect(("127.0.0.1", served.port))
        for data in (b"one", b"", b"x" * 2000):
            await loop.sock_sendall(client, data)
            async with asyncio.timeout(60):
                assert await loop.sock_recv(client, 4096) == b"too big " + data


@pytest.mark.parametrize("is_shared", [False, True])
async def test_a_closed_one_answers_nobody(serve: Serve, is_shared: bool) -> None:
    served = serve(is_shared=is_shared)
    assert (await ask(served, b"one"))[4:] == b"reply to one"
    served.close()
    served.close()
    with pytest.raises(OSError, match="Connect"):
        await asyncio.open_connection("127.0.0.1", served.port)


async def test_other_sockets_are_refused() -> None:
    tcp, udp = pair()
    other_tcp, other_udp = pair()
    unix, rest = socket.socketpair()
    unbound = socket.socket()
    everywhere = socket.socket()
    everywhere.bind(("0.0.0.0", 0))  # noqa: S104 - to be refused
    everywhere.listen()
    connected = socket.create_connection(tcp.getsockname())
    wrong = [
        (tcp, other_udp),
        (udp, tcp),
        (tcp, tcp),
        (unix, udp),
        (unbound, udp),
        (everywhere, udp),
        (connected, udp),
    ]
    for one, two in wrong:
        with pytest.raises(UnfitSocketsError):
            KdcSockets(one, two, echo, bytes)
    for each in (tcp, udp, other_tcp, other_udp, unix, unbound, everywhere, connected, rest):
        each.close()


async def test_a_user_who_has_the_sockets_as_well_holds_nobody_up(serve: Serve) -> None:
    """With them blocking, a lingering close, and connections taken away from under the agent."""
    tcp, udp = pair()
    theirs = tcp.dup()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 600))
    served = KdcSockets(tcp, udp, echo, bytes, is_shared=True)
    served.start()
    os.set_blocking(theirs.fileno(), True)
    os.set_blocking(udp.fileno(), True)
    other = serve()
    for _ in range(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"\0\0\0\1x")
        taken = await asyncio.to_thread(select.select, [theirs], [], [], 0)
        if taken[0]:
            os.set_blocking(theirs.fileno(), False)
            with contextlib.suppress(BlockingIOError):
                theirs.accept()[0].close()
            os.set_blocking(theirs.fileno(), True)
        assert (await ask(other, b"one"))[4:] == b"reply to one"
        async with asyncio.timeout(60):
            with contextlib.suppress(ConnectionError):
                await reader.read()
        writer.close()
    served.close()
    theirs.close()


async def test_a_shared_one_has_limits_too(serve: Serve) -> None:
    now = 0.0
    served = serve(is_shared=True, clock=lambda: now)
    replies = [asyncio.create_task(ask(served, b"x")) for _ in range(450)]
    async with asyncio.timeout(60):
        while sum(reply.done() for reply in replies) < 400:
            await asyncio.sleep(0.01)
    now = 10.0
    found = await asyncio.gather(*replies)
    assert all(reply[4:] == b"reply to x" for reply in found)


async def test_a_kept_one_goes_on_listening(serve: Serve) -> None:
    """The service manager has a copy of the socket."""
    tcp, udp = pair()
    kept = tcp.dup()
    served = KdcSockets(tcp, udp, echo, bytes, is_shared=True)
    served.start()
    served.close(for_good=False)
    assert kept.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    kept.shutdown(socket.SHUT_RDWR)
    kept.close()
