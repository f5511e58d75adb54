"""The gateway in front of a daemon that is a few lines long."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from credspec.errors import UsageError
from credspec.gateway import server
from credspec.gateway.listening_socket import listening
from credspec.gateway.server import DockerGateway

SPEC = {
    "CmsPlugins": ["ActiveDirectory"],
    "DomainJoinConfig": {
        "Sid": "S-1-5-21-2126449477-2524075714-3094792973",
        "MachineAccountName": "WebApp01",
        "Guid": "244818ae-87ac-4fcd-92ec-e79e5252348a",
        "DnsTreeName": "contoso.com",
        "DnsName": "contoso.com",
        "NetBiosName": "CONTOSO",
    },
    "ActiveDirectoryConfig": {
        "GroupManagedServiceAccounts": [{"Name": "WebApp01", "Scope": "CONTOSO"}]
    },
}
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
OK = b"HTTP/1.1 200 OK\r\nApi-Version: 1.43\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK"


class Daemon:
    """Answers each connection once its request is complete, and keeps what it got."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(x[15:]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length:")),
            0,
        )
        self.requests.append(head + await reader.readexactly(length))
        writer.write(OK)
        writer.close()


@asynccontextmanager
async def gateway(directory: Path, daemon: Callable[..., object] | None) -> AsyncIterator[Path]:
    upstream, path = directory / "docker.sock", directory / "gateway.sock"
    dockerd = await asyncio.start_unix_server(daemon, str(upstream)) if daemon else None
    with listening(path, None, directory) as listener:
        task = asyncio.create_task(DockerGateway(upstream, directory, limit=20).serve(listener))
        try:
            yield path
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if dockerd:
                dockerd.close()
    assert not path.exists()


async def ask(path: Path, request: bytes, *, end: bool = False) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(request)
    if end:
        writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer


def create(body: bytes, *fields: bytes, target: bytes = b"/v1.41/containers/create") -> bytes:
    length = b"Content-Length: %d" % len(body)
    lines = [b"POST " + target + b" HTTP/1.1", b"Host: d", *(fields or [length])]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def message(answer: bytes) -> str:
    return str(json.loads(answer.partition(b"\r\n\r\n")[2])["message"])


async def test_requests_pass_and_ask_the_daemon_to_close(tmp_path: Path) -> None:
    daemon = Daemon()
    async with gateway(tmp_path, daemon) as path:
        assert await ask(path, b"GET /info HTTP/1.1\r\nConnection: keep-alive\r\nA:b\r\n\r\n") == OK
    assert daemon.requests == [b"GET /info HTTP/1.1\r\nA:b\r\nConnection: close\r\n\r\n"]


async def test_upgrades_stay_upgrades_but_for_one_request(tmp_path: Path) -> None:
    daemon = Daemon()
    request = b"POST /x/attach HTTP/1.1\r\nUpgrade: tcp\r\nConnection: Upgrade, Keep-Alive\r\n\r\n"
    async with gateway(tmp_path, daemon) as path:
        await ask(path, request)
    assert b"Connection: Upgrade, close\r\n" in daemon.requests[0]


async def test_a_body_without_the_option_arrives_as_it_is(tmp_path: Path) -> None:
    daemon = Daemon()
    body = b'{ "Image":"x", "A":1e400, "HostConfig": {"SecurityOpt":[ ]} }\n'
    chunked = b"5\r\n%b\r\n%x;ext\r\n%b\r\n0\r\nT: u\r\n\r\n" % (body[:5], len(body) - 5, body[5:])
    async with gateway(tmp_path, daemon) as path:
        assert await ask(path, create(body)) == OK
        assert await ask(path, create(chunked, b"Transfer-Encoding: chunked")) == OK
    assert [request.partition(b"\r\n\r\n")[2] for request in daemon.requests] == [body, body]
    assert b"chunked" not in daemon.requests[1]


async def test_a_second_request_on_a_connection_does_not_slip_through(tmp_path: Path) -> None:
    daemon = Daemon()
    async with gateway(tmp_path, daemon) as path:
        await ask(path, create(b"{}") + create(b'{"second": true}'))
    assert len(daemon.requests) == 1
    assert b"second" not in daemon.requests[0]


async def test_expect_continue_is_answered_here(tmp_path: Path) -> None:
    async with gateway(tmp_path, Daemon()) as path:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(create(b"", b"Content-Length: 2", b"Expect: 100-continue"))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"{}")
        assert await reader.read() == OK
        writer.close()


async def test_the_daemon_is_asked_for_its_version_if_the_client_names_none(tmp_path: Path) -> None:
    daemon = Daemon()
    option = f"credentialspec=raw://{json.dumps(SPEC)}"
    body = json.dumps({"HostConfig": {"SecurityOpt": [option]}}).encode()
    async with gateway(tmp_path, daemon) as path:
        assert await ask(path, create(body, target=b"/containers/create")) == OK
        assert await ask(path, create(body)) == OK
    ping, new, old = daemon.requests
    assert ping.startswith(b"GET /_ping ")
    assert b'"Annotations"' in new
    assert b'"Env"' in old


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"rubbish\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000 + b"\r\n", b"431"),
        (create(b"", b"Content-Length: 16777217"), b"413"),
        (create(b"1000001\r\n", b"Transfer-Encoding: chunked"), b"413"),
        (create(b"-1\r\n", b"Transfer-Encoding: chunked"), b"400"),
        (create(b"1\r\nab\r\n", b"Transfer-Encoding: chunked"), b"400"),
        (create(b"", b"Transfer-Encoding: gzip, chunked"), b"400"),
        (create(b"{}", b"Content-Length: 2", b"Transfer-Encoding: chunked"), b"400"),
        (create(b"{}", b"Content-Length: 2", b"Content-Length: 3"), b"400"),
        (create(b"{}", b"Content-Length: +2"), b"400"),
        (create(b'{"HostConfig":{"SecurityOpt":["credentialspec=rubbish"]}}'), b"400"),
        (
            create(
                b'{"TaskTemplate":{"ContainerSpec":{"Privileges":{"CredentialSpec":{"Registry":"x"}}}}}',
                target=b"/v1.41/services/create",
            ),
            b"400",
        ),
    ],
)
async def test_refusals(tmp_path: Path, request_: bytes, status: bytes) -> None:
    daemon = Daemon()
    async with gateway(tmp_path, daemon) as path:
        answer = await ask(path, request_)
    assert answer.split(b" ")[1] == status
    assert message(answer)
    assert daemon.requests == []


@pytest.mark.parametrize(
    "request_",
    [b"", b"GET / HTTP/1.1\r\nHo", create(b"{", b"Content-Length: 2")],
    ids=["nothing", "half a head", "half a body"],
)
async def test_a_request_that_never_ends_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request_: bytes
) -> None:
    for name in ("_HEAD_SECONDS", "_BODY_SECONDS"):
        monkeypatch.setattr(server, name, 0.1)
    async with gateway(tmp_path, None) as path:
        assert (await ask(path, request_)).startswith(b"HTTP/1.1 408 ")


async def test_no_daemon(tmp_path: Path) -> None:
    async with gateway(tmp_path, None) as path:
        answer = await ask(path, b"GET /info HTTP/1.1\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 502 ")
        assert f"{tmp_path}/docker.sock" in message(answer)
        assert (await ask(path, b"HEAD /_ping HTTP/1.1\r\n\r\n")).endswith(b"\r\n\r\n")


async def test_each_half_of_an_attached_connection_ends_by_itself(tmp_path: Path) -> None:
    async def daemon(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 UPGRADED\r\n\r\n")
        everything = await reader.read()
        writer.write(everything[::-1])
        writer.close()

    async with gateway(tmp_path, daemon) as path:
        request = b"POST /c/attach HTTP/1.1\r\nUpgrade: tcp\r\n\r\n"
        answer = await ask(path, request + b"ab" * 500_000, end=True)
    assert answer == b"HTTP/1.1 101 UPGRADED\r\n\r\n" + b"ba" * 500_000


async def test_input_goes_on_after_the_end_of_output(tmp_path: Path) -> None:
    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def daemon(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write_eof()
        got.set_result(await reader.read())
        writer.close()

    async with gateway(tmp_path, daemon) as path:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"POST /c/attach HTTP/1.1\r\nUpgrade: tcp\r\n\r\n")
        assert await reader.read() == b""
        writer.write(b"late")
        writer.write_eof()
        assert await asyncio.wait_for(got, 5) == b"late"
        writer.close()


MEGABYTES = 24


@pytest.mark.parametrize("has_pipe", [True, False])
async def test_much_both_ways_at_once_arrives_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_pipe: bool
) -> None:
    """Also where there are no more descriptors for a pipe; a side that is slow loses nothing."""
    if not has_pipe:
        monkeypatch.setattr("credspec.sockets.tunnel._pipe", lambda: None)
    chance = random.Random(7)
    there, back = (chance.randbytes(MEGABYTES << 20) for _ in range(2))
    arrived: list[bytes] = []

    async def daemon(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

        async def answer() -> None:
            writer.write(back)
            await writer.drain()
            writer.write_eof()

        sending = asyncio.create_task(answer())
        await asyncio.sleep(0.05)  # meanwhile all buffers on the way are full
        arrived.append(await reader.read(-1))
        await sending
        writer.close()

    async with gateway(tmp_path, daemon) as path:
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"POST /grpc HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + there)

        async def ask_on() -> None:
            await writer.drain()
            writer.write_eof()

        sending = asyncio.create_task(ask_on())
        await asyncio.sleep(0.1)
        assert await reader.read(-1) == back
        await sending
        writer.close()
        while len(os.listdir("/proc/self/fd")) > before:  # noqa: PTH208
            await asyncio.sleep(0.01)
    assert arrived == [there]


async def test_a_client_that_goes_amid_much_leaves_nothing(tmp_path: Path) -> None:
    ended: list[type[Exception]] = []

    async def daemon(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            while True:
                writer.write(bytes(1 << 20))
                await writer.drain()
        except OSError as error:
            ended.append(type(error))
        writer.close()

    async with gateway(tmp_path, daemon) as path:
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET /images/x/get HTTP/1.1\r\n\r\n")
        await reader.readexactly(1 << 20)
        writer.close()
        while not ended or len(os.listdir("/proc/self/fd")) > before:  # noqa: PTH208
            await asyncio.sleep(0.01)


async def test_an_answer_in_the_middle_of_an_upload_arrives(tmp_path: Path) -> None:
    async def daemon(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        writer.close()

    def upload(path: Path) -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(str(path))
            client.sendall(b"POST /images/load HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n")
            # Whether all of it can be sent is a matter of time; the answer must be there.
            with suppress(ConnectionError):
                client.sendall(b"x" * 9_000_000)
            return client.recv(65536)

    async with gateway(tmp_path, daemon) as path:
        assert await asyncio.to_thread(upload, path) == OK


async def test_the_daemon_learns_at_once_that_a_client_is_gone(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def daemon(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        ended.set()
        writer.close()

    async with gateway(tmp_path, daemon) as path:
        _, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET /events HTTP/1.1\r\n\r\n")
        await asyncio.sleep(0.1)
        assert not ended.is_set()
        writer.close()
        await asyncio.wait_for(ended.wait(), 2)


async def test_clients_beyond_the_limit_wait_for_a_place(tmp_path: Path) -> None:
    daemon = Daemon()
    async with gateway(tmp_path, daemon) as path:
        idle = [await asyncio.open_unix_connection(str(path)) for _ in range(20)]
        waiting = asyncio.create_task(ask(path, b"GET /info HTTP/1.1\r\n\r\n"))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        idle.pop()[1].close()
        assert await waiting == OK
        for _, writer in idle:
            writer.close()


async def test_two_hundred_at_once(tmp_path: Path) -> None:
    async with gateway(tmp_path, Daemon()) as path:
        request = b"GET /info HTTP/1.1\r\n\r\n"
        answers = await asyncio.gather(*(ask(path, request) for _ in range(200)))
    assert answers == [OK] * 200


def test_a_living_socket_is_left_alone_and_a_stale_one_replaced(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    with listening(path, None, tmp_path):
        assert path.stat().st_mode & 0o777 == 0o660
        with (
            pytest.raises(UsageError, match="gateway-running"),
            listening(path, None, tmp_path),
        ):
            pass
        assert path.exists()
    assert not path.exists()


def test_a_file_that_is_no_socket_is_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("x")
    with pytest.raises(UsageError, match="gateway-path-taken"), listening(path, None, tmp_path):
        pass
    assert path.read_text() == "x"


def test_unknown_group(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match="gateway-group-unknown"),
        listening(tmp_path / "s", "no such group", tmp_path),
    ):
        pass


OURS = {"KRB5CCNAME=/run/credspec/krb5cc", "KRB5_CONFIG=/run/credspec/krb5.conf"}
IMAGE_ENV = json.dumps({"Config": {"Env": ["PATH=/bin", "KRB5_CONFIG=/image.conf"]}}).encode()


@pytest.mark.parametrize(
    ("head", "body", "stays"),
    [
        (b"HTTP/1.0 200 OK", IMAGE_ENV, True),
        (b"HTTP/1.1 200 OK", IMAGE_ENV, True),
        (b"HTTP/1.0 404 Not Found", IMAGE_ENV, False),
        (b"HTTP/1.0 200 OK", b'{"Config": null}', False),
        (b"HTTP/1.0 200 OK", b'{"Config": {"Env": null}}', False),
        (b"HTTP/1.0 200 OK", b'{"Config": {"Env": [["KRB5_CONFIG=/image.conf"], 7]}}', False),
        (b"HTTP/1.0 200 OK", b'{"Config": {"Env": {"KRB5_CONFIG=/image.conf": 1}}}', False),
        (b"HTTP/1.0 200 OK", b"[[[[", False),
        (b"HTTP/1.0 200 OK", b"[]", False),
        (b"HTTP/1.0 200 OK", b"", False),
        (b"rubbish", b"", False),
        (b"", b"", False),
    ],
)
async def test_variables_that_the_image_sets_are_not_set_again(
    tmp_path: Path, head: bytes, body: bytes, *, stays: bool
) -> None:
    asked: list[bytes] = []
    created: list[bytes] = []

    async def daemon(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if request.startswith(b"GET /images/"):
            asked.append(request)
            kind = b"\r\nContent-Type: application/json\r\n\r\n"
            writer.write(head + (kind + body if head else b""))
        else:
            length = int(request.lower().partition(b"content-length:")[2].split()[0])
            created.append(await reader.readexactly(length))
            writer.write(OK)
        writer.close()

    option = f"credentialspec=raw://{json.dumps(SPEC)}"
    wanted = {"Image": "r:5000/a b?x#y/../z", "HostConfig": {"SecurityOpt": [option]}}
    async with gateway(tmp_path, daemon) as path:
        assert await ask(path, create(json.dumps(wanted).encode())) == OK
    (request,) = asked
    assert request.startswith(b"GET /images/r:5000/a%20b%3Fx%23y/../z/json HTTP/1.1\r\n")
    expected = {each for each in OURS if not stays or "CONFIG" not in each}
    environment = set(json.loads(created[0])["Env"])
    assert {each for each in environment if each.startswith("KRB5")} == expected
