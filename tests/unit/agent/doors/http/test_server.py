"""The agent's HTTP socket: who is heard, for how long, and what a connection may cost."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from credspec.agent.doors.http import api as api_module
from credspec.agent.doors.http import server as http_server
from credspec.agent.doors.http.api import make_api
from credspec.agent.doors.http.server import refusal_response, report_admission, serving_http
from credspec.agent.leases.limits import RequestLimits
from credspec.config.policy import Policy, PolicyInForce
from credspec.sockets.admission import AdmissionReport, Refusal
from credspec.sockets.listener import listen
from credspec.sockets.peers import Peer
from support.agent.loop_turns import TurnCounter
from support.agent.scripted_leases import ScriptedLeases, directory_in_memory

LEASE = "0" * 32


class Server:
    def __init__(self, path: Path, bench: ScriptedLeases) -> None:
        self.path = str(path)
        self.bench = bench

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self.path)

    async def say(self, data: bytes) -> bytes:
        """Return all that is answered until the end of the connection."""
        reader, writer = await self.connect()
        writer.write(data)
        found = await reader.read()
        writer.close()
        return found

    async def ask(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, Any]:
        lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()]
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{''.join(lines)}"
        answer = await self.say(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        top, _, content = answer.partition(b"\r\n\r\n")
        if b"chunked" in top:
            content = b"".join(content.split(b"\r\n")[1::2])
        return int(top.split()[1]), json.loads(content or b"null")


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    monkeypatch.setattr(http_server, "_HEAD_SECONDS", 0.3)
    monkeypatch.setattr(api_module, "_BODY_SECONDS", 0.3)
    with directory_in_memory() as directory:
        bench = ScriptedLeases(directory)
        with listen(directory / "s", others=False) as listener:
            async with serving_http(
                make_api(bench.leases, bench.identities), listener, PolicyInForce()
            ):
                yield Server(directory / "s", bench)
        await bench.close()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"G",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX:",
        b"PUT /v1/leases/x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc",
    ],
)
async def test_half_of_a_request_is_closed_after_a_while(server: Server, said: bytes) -> None:
    async with asyncio.timeout(30):
        answer = await server.say(said)
    assert not answer or answer.startswith(b"HTTP/1.1 4")


async def test_a_connection_that_was_kept_is_closed_after_a_while(server: Server) -> None:
    reader, writer = await server.connect()
    for _ in range(3):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in await reader.readuntil(b"}")
    async with asyncio.timeout(30):
        assert await reader.read() == b""
    writer.close()


async def test_slots_are_given_back(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(20):
        assert (await server.ask("GET", "/healthz"))[0] == 200
        await server.say(b"nonsense\r\n\r\n")
        _, writer = await server.connect()
        writer.close()
    connected = [await server.connect() for _ in range(50)]
    for _, writer in connected:
        writer.close()
    assert (await server.ask("GET", "/healthz"))[0] == 200


async def test_malformed_requests_write_no_tracebacks(
    server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    for said in (
        b"\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n:\r\n\r\n",
    ):
        assert (await server.say(said)).startswith(b"HTTP/1.")
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    "charset", ["punycode", "utf-16", "utf-7", "idna", "latin-1", "no", "utf-8-sig"]
)
async def test_bodies_in_other_charsets_are_refused_unread(server: Server, charset: str) -> None:
    path = f"/v1/leases/{LEASE}"
    kind = f"application/json; charset={charset}"
    status, found = await server.ask("PUT", path, b"1" * 250_000, Content_Type=kind)
    assert status == 415
    assert found["problems"][0]["code"] == "http-415"
    status, _ = await server.ask("PUT", path, b"{}", Content_Type="application/json; charset=UTF-8")
    assert status == 400


async def test_lists_come_in_pieces_and_whole(server: Server) -> None:
    for number in range(120):
        await server.bench.leases.make(server.bench.request(number, f"App{number % 60}"))
    status, found = await server.ask("GET", "/v1/leases")
    assert (status, len(found["leases"])) == (200, 120)
    assert [each["container"] for each in found["leases"]][:2] == ["container0", "container1"]
    status, found = await server.ask("GET", "/v1/identities")
    assert (len(found["identities"]), found["acquisitions"]) == (60, 60)
    assert found["identities"][0]["leases"] == 2
    assert b"credspec_leases 120.0" in await server.say(
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )


async def test_who_does_not_read_a_list_is_cut_off(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("credspec.agent.doors.http.listing._SEND_SECONDS", 0.2)
    long = "x" * 4000
    for number in range(600):
        await server.bench.leases.make(server.bench.request(number, container=long))
    reader, writer = await server.connect()
    writer.write(b"GET /v1/leases HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.sleep(0.6)
    async with asyncio.timeout(30):
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(600 * 4000)
    writer.close()


USER = os.geteuid() + 4000


@pytest.fixture
def as_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the kernel's word be that an unprivileged user calls (simulated)."""
    peer = Peer(uid=USER, pid=7)
    monkeypatch.setattr("credspec.sockets.connection_listener.peer_of", lambda _: peer)
    monkeypatch.setattr(api_module, "peer_of", lambda _: peer)


@pytest.fixture
async def users_server(as_user: None, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    # No time passes for the number of requests, however slow the machine is.
    limits = partial(RequestLimits, clock=lambda: 0.0)
    monkeypatch.setattr(api_module, "RequestLimits", limits)
    policy = PolicyInForce(
        Policy(uids=frozenset({USER}), grpc_uids=frozenset({USER, USER + 1}), spec_sources=("raw",))
    )
    with directory_in_memory() as directory:
        bench = ScriptedLeases(directory, policy)
        with listen(directory / "s", others=False) as listener:
            api = make_api(bench.leases, bench.identities, policy=policy)
            async with serving_http(api, listener, policy):
                yield Server(directory / "s", bench)
        await bench.close()


async def test_a_user_sees_its_own_only_simulated(users_server: Server) -> None:
    bench = users_server.bench
    await bench.leases.make(bench.request(1, "Roots"))
    await bench.leases.make(bench.request(2, "Shared"))
    await bench.leases.make(bench.request(3, "Shared", uid=USER))
    await bench.leases.make(bench.request(4, "Others", uid=USER + 1))
    _, found = await users_server.ask("GET", "/v1/leases")
    assert [lease["container"] for lease in found["leases"]] == ["container3"]
    _, found = await users_server.ask("GET", "/v1/identities")
    assert [(i["account"], i["leases"]) for i in found["identities"]] == [("shared", 1)]
    _, found = await users_server.ask("GET", "/v1/domains")
    assert len(found["domains"]) == 1
    for number in (1, 2, 4, 5):
        status, found = await users_server.ask("GET", f"/v1/leases/{number:032x}")
        assert (status, found["problems"][0]["code"]) == (404, "lease-not-found")
    status, _ = await users_server.ask("GET", f"/v1/leases/{3:032x}")
    assert status == 200
    metrics = await users_server.say(
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    assert b'account="shared"' in metrics
    assert b"roots" not in metrics
    assert b"others" not in metrics
    assert b"credspec_leases 1.0" in metrics


async def test_too_many_requests_are_answered_with_when_to_come_again_simulated(
    users_server: Server,
) -> None:
    for _ in range(700):
        answer = await users_server.say(
            b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        if b" 429 " in answer:
            break
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert b"\r\nRetry-After: 1\r\n" in answer
    assert b"requests-too-many" in answer


async def test_requests_that_are_ready_together_begin_a_few_a_turn_simulated(
    users_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = TurnCounter()
    begun: Counter[int] = Counter()
    check = RequestLimits.check

    def checked(limits: RequestLimits, uid: int) -> None:
        begun[turns.number] += 1
        check(limits, uid)

    monkeypatch.setattr(RequestLimits, "check", checked)
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    connections = []
    for _ in range(30):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(users_server.path)
        connection.sendall(request)
        connection.setblocking(False)
        connections.append(connection)
    loop = asyncio.get_running_loop()
    for connection in connections:
        async with asyncio.timeout(60):
            assert (await loop.sock_recv(connection, 4096)).startswith(b"HTTP/1.1 200 ")
        connection.close()
    turns.stop()
    assert begun.total() == 30
    assert max(begun.values()) <= 4


async def test_a_flood_of_connections_leaves_room_for_others_simulated(
    users_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = []
    for _ in range(2000):
        connection = socket.socket(socket.AF_UNIX)
        connection.setblocking(False)
        try:
            connection.connect(users_server.path)
        except BlockingIOError:
            connection.close()
        else:
            held.append(connection)
        await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(60):
        answers = [await loop.sock_recv(connection, 4096) for connection in held[-3:]]
    assert all(answer.startswith(b"HTTP/1.1 429 ") for answer in answers)
    root = Peer(uid=os.geteuid(), pid=1)
    monkeypatch.setattr("credspec.sockets.connection_listener.peer_of", lambda _: root)
    monkeypatch.setattr(api_module, "peer_of", lambda _: root)
    async with asyncio.timeout(60):
        assert (await users_server.ask("GET", "/healthz"))[0] == 200
    for connection in held:
        connection.close()


def test_a_refusal_is_a_whole_response() -> None:
    for refusal, status in (
        (Refusal.NOT_PERMITTED, 403),
        (Refusal.TOO_MANY, 429),
        (Refusal.FULL, 429),
    ):
        head, _, content = refusal_response(Peer(uid=7), refusal).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert b"Content-Length: %d\r\n" % len(content) in head
        assert json.loads(content)["status"] == status
    assert b"user 7 may not use the agent" in refusal_response(Peer(uid=7), Refusal.NOT_PERMITTED)


def test_every_report_becomes_an_event(capfd: pytest.CaptureFixture[str]) -> None:
    for report in (
        AdmissionReport(Peer(uid=7, pid=8), Refusal.NOT_PERMITTED),
        AdmissionReport(Peer(uid=7), Refusal.TOO_MANY, suppressed=12),
        AdmissionReport(reason="Too many open files"),
        AdmissionReport(suppressed=3),
    ):
        report_admission(report)
    shown = "".join(capfd.readouterr())
    assert shown.count("caller-refused") == 3
    assert "connections-not-accepted" in shown
    assert "12" in shown
