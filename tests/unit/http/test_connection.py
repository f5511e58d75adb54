"""A server's connection: framing, limits, and whatever a client may send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from credspec.http.connection import ConnectionTimes, HttpConnection
from credspec.http.messages import HttpError, Request, Response, Routes

TIMES = ConnectionTimes(head=30.0, unread_body=30.0, answer=30.0, head_bytes=2048)
MOST = 100_000


def refuse(error: HttpError) -> Response:
    return Response(error.status, b"no", {"Allow": error.allow} if error.allow else {})


async def echo(request: Request, _: None) -> Response:
    body = await request.exchange.read_body(MOST)
    return Response(body=b"%s %d" % (request.matched.encode(), len(body)))


async def unread(request: Request, _: None) -> Response:
    return Response(204, headers={"X-Method": request.method})


async def pieces(request: Request, _: None) -> Response:
    await request.exchange.begin(200, {"Content-Type": "text/plain"})
    for piece in (b"a" * 1000, b"b"):
        await request.exchange.write(piece)
    return Response(is_sent=True)


ROUTES: Routes[None] = Routes()
ROUTES.add("PUT", "/echo/{id}", echo)
ROUTES.add("GET", "/unread", unread)
ROUTES.add("POST", "/echo/{id}/more", unread)
ROUTES.add("GET", "/pieces", pieces)


async def answer(request: Request) -> Response:
    try:
        return await ROUTES.find(request)(request, None)
    except HttpError as error:
        return refuse(error)


@asynccontextmanager
async def served(path: Path) -> AsyncIterator[Path]:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await HttpConnection(reader, writer, answer, refuse, TIMES).serve()

    async with await asyncio.start_unix_server(connected, path):
        yield path


async def say(path: Path, *said: bytes) -> bytes:
    """Return all that is answered; the client's side stays open."""
    reader, writer = await asyncio.open_unix_connection(path)
    for each in said:
        writer.write(each)
        await asyncio.sleep(0)
    async with asyncio.timeout(60):
        found = await reader.read()
    writer.close()
    return found


LAST = b"Host: x\r\nConnection: close\r\n"


async def test_requests_one_after_the_other_and_ahead_of_their_answers(tmp_path: Path) -> None:
    async with served(tmp_path / "s") as path:
        found = await say(
            path,
            b"PUT /echo/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
            b"GET /unread HTTP/1.1\r\nHost: x\r\n\r\n"
            b"PUT /echo/%2e%2F HTTP/1.1\r\nContent-Length: 2\r\n" + LAST + b"\r\na",
            b"b",
        )
    assert found.count(b"HTTP/1.1 ") == 3
    assert b"\r\n\r\n1 3HTTP/1.1 204 No Content\r\n" in found
    assert found.endswith(b"\r\n\r\n./ 2")


async def test_a_body_in_pieces_is_refused_with_its_head(tmp_path: Path) -> None:
    """Whatever else the head says: no piece is looked at."""
    pieces = b"1\r\nx\r\n" * 10_000
    async with served(tmp_path / "s") as path:
        for fields in (
            b"Transfer-Encoding: chunked",
            b"transfer-encoding: chunked\r\nContent-Length: 3",
        ):
            head = b"PUT /echo/1 HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n\r\n"
            found = await say(path, head, pieces)
            assert found.startswith(b"HTTP/1.1 411 Length Required\r\n")
            assert found.count(b"HTTP/1.1 ") == 1


async def test_methods_and_paths(tmp_path: Path) -> None:
    async with served(tmp_path / "s") as path:
        for line, expected in (
            (b"GET /nothing", b"404 Not Found"),
            (b"GET /echo/", b"404 Not Found"),
            (b"PUT /echo/a/b", b"404 Not Found"),
            (b"POST /echo/a/more", b"204 No Content"),
            (b"DELETE /unread", b"405 Method Not Allowed"),
            (b"GET /unread?x=1", b"204 No Content"),
            (b"GET http://host/unread", b"204 No Content"),
            (b"HEAD /unread", b"204 No Content"),
        ):
            found = await say(path, line + b" HTTP/1.1\r\n" + LAST + b"\r\n")
            assert found.startswith(b"HTTP/1.1 " + expected), (line, found)
            assert (b"\r\nAllow: GET,HEAD\r\n" in found) == (b"405" in expected)


async def test_an_answer_in_pieces(tmp_path: Path) -> None:
    async with served(tmp_path / "s") as path:
        found = await say(path, b"GET /pieces HTTP/1.1\r\n" + LAST + b"\r\n")
        assert b"chunked" in found
        assert found.endswith(b"3e8\r\n" + b"a" * 1000 + b"\r\n1\r\nb\r\n0\r\n\r\n")
        old = await say(path, b"GET /pieces HTTP/1.0\r\n\r\n")
        assert old.endswith(b"\r\n\r\n" + b"a" * 1000 + b"b")
        head = await say(path, b"HEAD /pieces HTTP/1.1\r\n" + LAST + b"\r\n")
        assert head.endswith(b"\r\n\r\n")


async def test_limits(tmp_path: Path) -> None:
    long = b"X: " + b"x" * 4096
    async with served(tmp_path / "s") as path:
        found = await say(path, b"GET /unread HTTP/1.1\r\nHost: x\r\n" + long + b"\r\n\r\n")
        assert found.startswith(b"HTTP/1.1 400 ")
        head = b"PUT /echo/1 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (2 * MOST)
        found = await say(path, head, b"x" * 2 * MOST)
        assert found.startswith(b"HTTP/1.1 413 ")
        # What nobody reads does not keep the answer from the client.
        found = await say(path, head.replace(b"PUT /echo/1", b"GET /unread"), b"x" * MOST)
        assert found.startswith(b"HTTP/1.1 204 ")
        assert b"\r\nConnection: close\r\n" in found


async def test_a_client_that_asks_before_it_sends_a_body(tmp_path: Path) -> None:
    async with served(tmp_path / "s") as path:
        reader, writer = await asyncio.open_unix_connection(path)
        head = b"PUT /echo/1 HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n" + LAST
        writer.write(head + b"\r\n")
        async with asyncio.timeout(60):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
            writer.write(b"ab")
            assert (await reader.read()).endswith(b"1 2")
        writer.close()


REQUESTS = st.one_of(
    st.binary(max_size=300),
    st.builds(
        lambda method, target, fields, body: (
            b"%s %s HTTP/1.1\r\n%s\r\n\r\n%s" % (method, target, b"\r\n".join(fields), body)
        ),
        st.sampled_from([b"GET", b"PUT", b"HEAD", b"", b"\0"]),
        st.sampled_from([b"/unread", b"/echo/1", b"/pieces", b"*", b"//", b"http:", b"\xff"]),
        st.lists(
            st.sampled_from(
                [
                    b"Host: x",
                    b"Content-Length: 3",
                    b"Content-Length: -1",
                    b"Transfer-Encoding: chunked",
                    b"Transfer-Encoding: gzip",
                    b"Connection: close",
                    b"Upgrade: websocket",
                    b":",
                    b"X: \x01",
                ]
            ),
            max_size=4,
        ),
        st.sampled_from([b"", b"abc", b"3\r\nabc\r\n0\r\n\r\n", b"fffffffffffffffffff\r\n"]),
    ),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(said=st.lists(REQUESTS, max_size=3))
async def test_whatever_is_sent_the_connection_ends(tmp_path: Path, said: list[bytes]) -> None:
    ended = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await HttpConnection(reader, writer, answer, refuse, TIMES).serve()
        ended.set()

    path = tmp_path / "s"
    path.unlink(missing_ok=True)
    async with await asyncio.start_unix_server(connected, path):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"".join(said))
        writer.write_eof()
        async with asyncio.timeout(60):
            found = await reader.read()
            await ended.wait()
        writer.close()
    assert not found or found.startswith(b"HTTP/1.1 ")
