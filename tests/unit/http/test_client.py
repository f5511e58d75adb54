"""The client: what it sends, how much it reads, and which connections it uses again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from credspec.http.client import HttpAnswer, HttpClient, TooLongError

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Y: z\r\n\r\nhi"
MOST = 1000


class Server:
    """Answers each request with the next of some bytes; `None` closes the connection."""

    def __init__(self, answers: list[bytes | None]) -> None:
        self.answers = answers
        self.heads: list[bytes] = []
        self.connections = 0
        self.closes = False
        """Whether the connection is closed after an answer."""

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                answer = self.answers.pop(0)
                if answer is None:
                    break
                writer.write(answer)
                if self.closes:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def served(
    path: Path, *answers: bytes | None, kept: int = 1
) -> AsyncIterator[tuple[Server, Callable[[], object]]]:
    server = Server(list(answers))
    path.unlink(missing_ok=True)  # noqa: ASYNC240 - nobody waits
    client = HttpClient(path, connections=4, kept=kept)

    async def ask() -> HttpAnswer:
        async with asyncio.timeout(60):
            return await client.request("GET", "/x", headers={"A": "b"}, most_bytes=MOST)

    async with await asyncio.start_unix_server(server.connected, path):
        yield server, ask
        client.close()


async def test_a_connection_is_used_again(tmp_path: Path) -> None:
    async with served(tmp_path / "s", OK, OK, OK) as (server, ask):
        for _ in range(3):
            assert await ask() == (200, {"content-length": "2", "x-y": "z"}, b"hi")
        assert server.connections == 1
    assert server.heads[0] == b"GET /x HTTP/1.1\r\nHost: credspec\r\nA: b\r\n\r\n"


async def test_a_connection_that_may_not_be_kept_is_not(tmp_path: Path) -> None:
    last = OK.replace(b"X-Y: z", b"Connection: close")
    async with served(tmp_path / "s", last, OK) as (server, ask):
        for _ in range(2):
            assert (await ask()).body == b"hi"
        assert server.connections == 2
    async with served(tmp_path / "s", OK, OK, kept=0) as (server, ask):
        for _ in range(2):
            await ask()
        assert server.connections == 2


async def test_questions_at_the_same_time_have_connections_of_their_own(tmp_path: Path) -> None:
    async with served(tmp_path / "s", OK, OK, OK, kept=2) as (server, ask):
        await asyncio.gather(ask(), ask(), ask())
        assert server.connections == 3


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1001,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001 + b"\r\n",
    ],
)
async def test_an_answer_above_the_limit(tmp_path: Path, answer: bytes) -> None:
    async with served(tmp_path / "s", answer, OK) as (server, ask):
        with pytest.raises(TooLongError):
            await ask()
        assert (await ask()).body == b"hi"
        assert server.connections == 2


@pytest.mark.parametrize(
    "answer", [None, b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000]
)
async def test_what_is_no_answer(tmp_path: Path, answer: bytes | None) -> None:
    async with served(tmp_path / "s", answer) as (_, ask):
        with pytest.raises(ConnectionError):
            await ask()


async def test_nobody_is_there(tmp_path: Path) -> None:
    client = HttpClient(tmp_path / "none", connections=1, kept=1)
    with pytest.raises(FileNotFoundError):
        await client.request("GET", "/", headers={}, most_bytes=1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    answer=st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=100).map(lambda rest: b"HTTP/1.1 200 OK\r\n" + rest),
        st.binary(max_size=100).map(lambda rest: OK + rest),
    )
)
async def test_whatever_is_answered_it_is_an_answer_or_an_error(
    tmp_path: Path, answer: bytes
) -> None:
    async with served(tmp_path / "s", answer, kept=0) as (server, ask):
        server.closes = True
        try:
            found = await ask()
        except (ConnectionError, TooLongError):
            return
        assert 200 <= found.status < 1000
        assert len(found.body) <= MOST
