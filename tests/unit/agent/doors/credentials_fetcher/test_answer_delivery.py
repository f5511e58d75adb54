"""Leases whose answer does not reach the caller: gRPC and the front of its socket are real."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.agent.audit import Caller
from credspec.agent.doors.credentials_fetcher import answer_delivery
from credspec.agent.doors.credentials_fetcher import credentialsfetcher_pb2 as wire
from credspec.agent.doors.credentials_fetcher.answer_delivery import AnswerDelivery, lease_of
from credspec.agent.doors.credentials_fetcher.call_handlers import CallHandlers
from credspec.agent.doors.credentials_fetcher.connections import CallerConnections
from credspec.agent.doors.credentials_fetcher.http2_frames import ClientFrames, ServerFrames
from credspec.agent.doors.credentials_fetcher.lease_tree import LeaseTree
from credspec.agent.doors.credentials_fetcher.service import Service
from credspec.config.credentials_fetcher import FetcherConfig
from credspec.sockets.listener import listen
from support.agent.scripted_leases import ScriptedLeases, directory_in_memory, raw_spec
from support.credentials_fetcher import peer_client
from support.credentials_fetcher.http2_frames_by_hand import (
    DATA,
    END_STREAM,
    GREETING,
    HEADERS,
    RST_STREAM,
    fields,
    frame,
    whole_call,
)
from support.credentials_fetcher.peer_client import PeerClient

SPEC = raw_spec("WebApp01").removeprefix("raw://")
CANCEL, NO_ERROR = b"\0\0\0\x08", b"\0\0\0\0"
REQUEST = fields((1, SPEC.encode()))
LEASES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", fullmatch=True)


def answer_of(lease: str, *, prefix: bytes = b"\0") -> bytes:
    message = wire.CreateKerberosLeaseResponse(
        lease_id=lease, created_kerberos_file_paths=["/var/x" * 20]
    ).SerializeToString()
    return (prefix + len(message).to_bytes(4, "big") + message)[: answer_delivery.ANSWER_BYTES]


@given(LEASES)
def test_the_lease_in_an_answer(lease: str) -> None:
    assert lease_of(answer_of(lease)) == lease
    assert lease_of(answer_of(lease, prefix=b"\1")) is None


@given(st.binary(max_size=80))
def test_any_bytes_are_a_lease_or_none(data: bytes) -> None:
    found = lease_of(data)
    assert found is None or 0 < len(found) <= 64


@given(
    st.lists(
        st.tuples(st.sampled_from(["expect", "written", "reset", "look"]), st.integers(1, 6)),
        max_size=40,
    )
)
def test_every_lease_is_kept_if_and_only_if_its_answer_arrived(
    steps: list[tuple[str, int]],
) -> None:
    """Stream and lease have one number; each happens at most once, in any order."""
    delivery, undone = AnswerDelivery(), list[int]()
    expected, written, reset = set[int](), set[int](), set[int]()
    for step, number in steps:
        match step:
            case "expect" if number not in expected:
                expected.add(number)
                delivery.expect(str(number), lambda n=number: undone.append(n), is_idle=False)
            case "written" if number in expected - written and number not in undone:
                written.add(number)
                delivery.written(number, answer_of(str(number)))
            case "reset" if number not in reset:
                reset.add(number)
                delivery.reset(number)
            case "look" if number == 1:
                delivery.look(is_idle=True)
    delivery.end()
    assert sorted(undone) == sorted(expected - (written - reset) | (expected & written & reset))


@given(st.data())
def test_answers_and_resets_are_found_however_the_bytes_arrive(data: st.DataObject) -> None:
    client, server = ClientFrames(), ServerFrames(answer_delivery.ANSWER_BYTES)
    asked = GREETING + whole_call(1, "X", b"a") + whole_call(3, "X", b"b")
    asked += frame(RST_STREAM, NO_ERROR, stream=1) + frame(RST_STREAM, CANCEL, stream=3)
    body = answer_of("one") + bytes(300)
    parts = [frame(DATA, body[:4], stream=1), frame(DATA, answer_of("two"), stream=3)]
    parts += [frame(DATA, body[4:], stream=1), frame(HEADERS, b"x", flags=END_STREAM, stream=3)]
    parts += [frame(HEADERS, b"x", flags=END_STREAM, stream=1)]

    def pieces(whole: bytes) -> list[bytes]:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
        ends = [*cuts, len(whole)]
        return [whole[a:b] for a, b in zip([0, *cuts], ends, strict=True)]

    resets: list[int] = []
    for piece in pieces(asked):
        client.feed(memoryview(piece))
        resets += client.take_resets()
    assert resets == [3]
    ended = [
        stream for piece in pieces(b"".join(parts)) for stream in server.feed(memoryview(piece))
    ]
    assert ended == [3, 1]
    assert [lease_of(server.take_answer(stream)) for stream in ended] == ["two", "one"]


class Bench:
    """The interface over a simulated domain, and what is left of leases."""

    def __init__(self, leases: ScriptedLeases, socket: Path) -> None:
        self.inner = leases
        self.socket = socket
        self.tree = leases.directory / "tree"
        self.service: Service
        self.before_answer: Callable[[], Any] = lambda: None

    async def nothing_is_left(self) -> None:
        async with asyncio.timeout(30):
            while self.inner.leases.all() or list(self.tree.iterdir()):
                await asyncio.sleep(0.01)

    def decisions(self) -> list[str]:
        return [line["decision"] for line in self.inner.audited()]


@asynccontextmanager
async def served() -> AsyncIterator[Bench]:
    with directory_in_memory() as directory:
        inner = ScriptedLeases(directory)
        bench = Bench(inner, directory / "front.sock")
        bench.service = Service(
            inner.leases, LeaseTree(bench.tree), FetcherConfig(lease_tree=bench.tree)
        )
        make = bench.service.leases.make

        async def made(*values: Any) -> Any:
            found = await make(*values)
            bench.before_answer()
            return found

        bench.service.leases.make = made  # type: ignore[method-assign]
        (directory / "grpc").mkdir()
        connections = CallerConnections(directory / "grpc/s")
        server = grpc.aio.server()
        calls = CallHandlers(bench.service, connections.served, connections.expect)
        server.add_generic_rpc_handlers((calls.handlers(),))
        server.add_insecure_port(f"unix:{directory}/grpc/s")
        await server.start()
        try:
            with listen(bench.socket, others=False) as listener:
                async with connections.accepting(listener, lambda _: True):
                    yield bench
        finally:
            await server.stop(0)
            await bench.service.leases.settled()
            await inner.close()


@asynccontextmanager
async def connected(bench: Bench) -> AsyncIterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, str(bench.socket))
        yield client


async def answered(client: socket.socket) -> None:
    data = b""
    async with asyncio.timeout(30):
        while b"grpc-status" not in data:
            data += await asyncio.get_running_loop().sock_recv(client, 4096)


CLIENT = """
import sys
from pathlib import Path
import grpc
from support.credentials_fetcher.peer_client import PeerClient
client = PeerClient(Path(sys.argv[1]))
client.call("HealthCheck")
try:
    fields = {"seconds": float(sys.argv[2]), "credspec_contents": sys.argv[3:]}
    print(client.call("AddKerberosLease", **fields))
except grpc.RpcError as error:
    print(error.code().name)
"""


async def add(bench: Bench, seconds: float) -> str:
    """Ask for a lease in a process of its own, which gives up after some seconds."""
    tests = str(Path(peer_client.__file__).parents[2])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", f"import sys; sys.path.insert(0, {tests!r}); {CLIENT}"),
        *(str(bench.socket), str(seconds), SPEC),
        stdout=subprocess.PIPE,
    )
    shown, _ = await process.communicate()
    return shown.decode()


@pytest.mark.root  # only root may call
async def test_an_answer_that_arrives_is_a_lease_that_stays_simulated() -> None:
    async with served() as bench:
        assert "lease_id" in await add(bench, 60)
        # Its process has gone since.
        await asyncio.sleep(0.3)
        assert bench.decisions() == ["granted"]
        assert len(bench.inner.leases.all()) == 1


@pytest.mark.root  # only root may call
async def test_a_lease_granted_as_the_callers_deadline_passes_is_undone_simulated() -> None:
    """The agent is held up between grant and answer until the client has given up."""
    async with served() as bench:
        bench.before_answer = lambda: time.sleep(4)
        assert await add(bench, 3) == "DEADLINE_EXCEEDED\n"
        await bench.nothing_is_left()
        assert bench.decisions() == ["granted", "released"]


@pytest.mark.root  # only root may call
@pytest.mark.parametrize("moment", ["before the answer", "while it is on its way", "after it"])
@pytest.mark.parametrize("way", ["resets the call", "closes the connection"])
async def test_a_call_that_ends_about_its_answer_simulated(
    moment: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served() as bench, connected(bench) as client:

        def end() -> None:
            if client.fileno() >= 0 and way == "resets the call":
                client.send(frame(RST_STREAM, CANCEL, stream=1))
            else:
                client.close()

        if moment == "before the answer":
            bench.before_answer = end
        if moment == "while it is on its way":
            monkeypatch.setattr(ServerFrames, "feed", followed(ServerFrames.feed, end))
        client.send(GREETING + whole_call(1, "AddKerberosLease", REQUEST))
        if moment == "after it":
            await answered(client)
            end()
        while not bench.decisions():
            await asyncio.sleep(0.01)
        if (moment, way) == ("after it", "closes the connection"):
            await asyncio.sleep(0.3)
            assert bench.decisions() == ["granted"]
        else:
            await bench.nothing_is_left()
            assert bench.decisions() == ["granted", "released"]


def followed(
    feed: Callable[[ServerFrames, memoryview], list[int]], end: Callable[[], None]
) -> Callable[[ServerFrames, memoryview], list[int]]:
    """`feed`, and `end` when it has found the end of an answer that is not written yet."""

    def fed(frames: ServerFrames, data: memoryview) -> list[int]:
        ended = feed(frames, data)
        if ended:
            end()
        return ended

    return fed


@pytest.mark.root  # only root may call
async def test_a_reset_without_error_takes_nothing_away_simulated() -> None:
    async with served() as bench, connected(bench) as client:
        client.send(GREETING + whole_call(1, "AddKerberosLease", REQUEST))
        await answered(client)
        client.send(frame(RST_STREAM, NO_ERROR, stream=1))
        await asyncio.sleep(0.3)
        assert bench.decisions() == ["granted"]


@pytest.mark.root  # only root may call
async def test_what_was_asked_for_again_meanwhile_is_not_undone_simulated() -> None:
    """The id of a lease by ARN is the caller's: its second try has the same one."""
    async with served() as bench:
        await add(bench, 60)
        [record] = bench.inner.leases.all()
        lease = record.container.partition("/")[0]
        entries = bench.service.leases._tickets.of(lease)
        undo = bench.service.leases._undo(lease, [(entries[0], record)], Caller(0, 1))
        again = {name: getattr(record, name) for name in ("lease_id", "place", "runtime_state")}
        await bench.inner.leases.make(replace(bench.inner.request(1), **again))
        undo()
        undo()
        await bench.service.leases.settled()
        assert len(bench.inner.leases.all()) == 1
        assert bench.decisions() == ["granted", "released", "granted"]


async def test_of_many_callers_that_give_up_each_knows_its_lease_or_there_is_none_simulated() -> (
    None
):
    async with served() as bench:
        bench.inner.session.seconds = 0.05

        def call(number: int) -> str | None:
            client = PeerClient(bench.socket)
            try:
                made = client.call(
                    "AddKerberosLease", seconds=0.002 * number, credspec_contents=[SPEC]
                )
            except grpc.RpcError:
                return None
            finally:
                client.close()
            return str(made.lease_id)

        found = await asyncio.gather(*(asyncio.to_thread(call, n) for n in range(1, 200)))
        known = {lease for lease in found if lease is not None}
        async with asyncio.timeout(30):
            while set(bench.service.leases.ids()) != known:
                await asyncio.sleep(0.02)
        decisions = bench.decisions()
        assert decisions.count("granted") - decisions.count("released") == len(known)
