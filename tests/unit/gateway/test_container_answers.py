"""Answers about containers on their way through the gateway; dockerd is simulated."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from credspec.contract.lease_environment import LEASE_ENVIRONMENT
from credspec.gateway import body_memory, container_answers, daemon_answer
from credspec.gateway.listening_socket import listening
from credspec.gateway.server import DockerGateway

CONTAINER = {
    "Id": "a",
    "Image": "sha256:0",
    "Config": {"Env": ["A=1", *(f"{n}={v}" for n, v in LEASE_ENVIRONMENT.items())]},
    "HostConfig": {
        "Runtime": "credspec",
        "SecurityOpt": None,
        "Annotations": {"credspec.dev/spec": "file://www.json"},
    },
}
REQUESTED = {
    "Id": "a",
    "Image": "sha256:0",
    "Config": {"Env": ["A=1"]},
    "HostConfig": {"Runtime": "runc", "SecurityOpt": ["credentialspec=file://www.json"]},
}
JSON = b"Content-Type: application/json"


def answer(body: bytes, *fields: bytes, status: bytes = b"200 OK") -> bytes:
    lines = [b"HTTP/1.1 " + status, b"Api-Version: 1.51", *fields, b"Connection: close"]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def with_length(body: bytes, *fields: bytes, status: bytes = b"200 OK") -> bytes:
    return answer(body, *(fields or (JSON,)), b"Content-Length: %d" % len(body), status=status)


def chunked(body: bytes, size: int, *fields: bytes) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    frames = b"".join(b"%x;e=1\r\n%b\r\n" % (len(part), part) for part in parts)
    return answer(
        frames + b"0\r\nT: u\r\n\r\n", *(fields or (JSON,)), b"Transfer-Encoding: chunked"
    )


class SimulatedDaemon:
    """Answers each path with the bytes given for it, and keeps the requests."""

    def __init__(self, answers: dict[str, bytes]) -> None:
        self.answers = answers
        self.requests: list[bytes] = []
        self.gone = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        length = next((int(x[15:]) for x in lines if x.lower().startswith(b"content-length:")), 0)
        self.requests.append(head + await reader.readexactly(length))
        path = lines[0].split(b" ")[1].decode().partition("?")[0]
        if path.endswith("/slow/json"):
            await reader.read()
            self.gone.set()
        else:
            writer.write(self.answers.get(path, with_length(b"{}", status=b"404 Not Found")))
        writer.close()


@asynccontextmanager
async def gateway(directory: Path, daemon: Callable[..., object]) -> AsyncIterator[Path]:
    upstream, path = directory / "docker.sock", directory / "gateway.sock"
    dockerd = await asyncio.start_unix_server(daemon, str(upstream))
    with listening(path, None, directory) as listener:
        task = asyncio.create_task(DockerGateway(upstream, directory, limit=20).serve(listener))
        try:
            yield path
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            dockerd.close()


async def ask(path: Path, request: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(request)
    found = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    return found


def get(target: str, *fields: bytes, method: str = "GET") -> bytes:
    lines = [f"{method} {target} HTTP/1.1".encode(), b"Host: d", *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def body_of(found: bytes) -> Any:
    head, _, body = found.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert b"content-length: %d" % len(body) in lines
    assert not any(line.startswith((b"transfer-", b"content-encoding")) for line in lines)
    assert b"api-version: 1.51" in lines
    return json.loads(body)


async def through(directory: Path, sent: bytes, target: str = "/v1.41/containers/a/json") -> bytes:
    daemon = SimulatedDaemon({target.partition("?")[0]: sent})
    async with gateway(directory, daemon) as path:
        found = await ask(path, get(target, b"Accept-Encoding: gzip"))
    assert b"Accept-Encoding" not in daemon.requests[0]
    return found


TEXT = json.dumps(CONTAINER).encode()
FORMS = {
    "length": with_length(TEXT),
    "chunks": chunked(TEXT, 7),
    "one chunk": chunked(TEXT, 1 << 20),
    "to the end": answer(TEXT, JSON),
    "with a charset": with_length(TEXT, b"content-type: Application/JSON; charset=utf-8"),
    "gzip": with_length(gzip.compress(TEXT), JSON, b"Content-Encoding: gzip"),
    "deflate in chunks": chunked(zlib.compress(TEXT), 11, JSON, b"Content-Encoding: deflate"),
}


@pytest.mark.parametrize("form", FORMS)
async def test_an_answer_in_any_form_is_changed(tmp_path: Path, form: str) -> None:
    assert body_of(await through(tmp_path, FORMS[form])) == REQUESTED


@pytest.mark.parametrize(
    "target",
    [
        "/containers/a/json",
        "/v1.25/containers/a/json",
        "/v1.51/containers/a/json?size=1",
        "/containers//a/json",
        "/v1.41/containers/%61/json",
    ],
)
async def test_any_version_and_query(tmp_path: Path, target: str) -> None:
    assert body_of(await through(tmp_path, with_length(TEXT), target)) == REQUESTED


UNTOUCHED = {
    "another container": with_length(b'{"Config": {"Env": null}, "HostConfig": {}}'),
    "an error": with_length(b'{"message":"No such container: credspec"}', status=b"404 Not Found"),
    "an error of dockerd's own": with_length(TEXT, status=b"500 Internal Server Error"),
    "no JSON": with_length(TEXT, b"Content-Type: text/plain"),
    "malformed JSON": with_length(TEXT[:-1]),
    "an unknown compression": with_length(TEXT, JSON, b"Content-Encoding: br"),
    "a wrong compression": with_length(TEXT, JSON, b"Content-Encoding: gzip"),
    "nothing": with_length(b""),
    "an unknown coding": answer(TEXT, JSON, b"Transfer-Encoding: gzip"),
}


@pytest.mark.parametrize("form", UNTOUCHED)
async def test_what_is_not_to_be_changed_arrives_byte_for_byte(tmp_path: Path, form: str) -> None:
    assert await through(tmp_path, UNTOUCHED[form]) == UNTOUCHED[form]


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("HEAD", "/v1.41/containers/a/json"),
        ("POST", "/v1.41/containers/a/json"),
        ("GET", "/v1.41/containers/a/logs"),
        ("GET", "/v1.41/containers/a/json/x"),
        ("GET", "/v1.41/events?filters=/containers/a/json"),
    ],
)
async def test_other_requests_are_not_touched(tmp_path: Path, method: str, target: str) -> None:
    sent = with_length(TEXT)
    async with gateway(tmp_path, SimulatedDaemon({target.partition("?")[0]: sent})) as path:
        assert await ask(path, get(target, method=method)) == sent


@pytest.mark.parametrize("mebibytes", [1, 7])
@pytest.mark.parametrize("in_chunks", [False, True])
async def test_megabytes_are_changed(tmp_path: Path, mebibytes: int, in_chunks: bool) -> None:
    more = {"Labels": {"x": "y" * (mebibytes << 20)}}
    text = json.dumps(CONTAINER | more).encode()
    sent = chunked(text, 100_000) if in_chunks else with_length(text)
    assert body_of(await through(tmp_path, sent)) == REQUESTED | more


@pytest.mark.parametrize("form", ["length", "chunks", "one chunk", "to the end", "gzip"])
async def test_more_than_any_container_has_passes_as_it_is(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_answer, "MAX_ANSWER_BYTES", len(TEXT) - 1)
    assert await through(tmp_path, FORMS[form]) == FORMS[form]


async def test_no_memory_left_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_memory.BodyMemory.__init__, "__kwdefaults__", {"seconds": 0.1})
    monkeypatch.setattr(body_memory.BodyMemory.__init__, "__defaults__", (1000, 1000))
    found = await through(tmp_path, with_length(b" " * 2000))
    assert found.startswith(b"HTTP/1.1 503 ")
    assert b"bodies-too-large" in found


@pytest.mark.parametrize(
    "sent",
    [
        b"rubbish\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70_000,
        answer(b"x\r\n", JSON, b"Transfer-Encoding: chunked"),
    ],
    ids=["no head", "a head without an end", "no chunk"],
)
async def test_an_answer_that_is_none_is_said(tmp_path: Path, sent: bytes) -> None:
    found = await through(tmp_path, sent)
    assert found.startswith(b"HTTP/1.1 502 ")
    assert b"docker-answer" in found


async def test_a_client_that_goes_while_dockerd_is_busy_ends_the_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `size=1` dockerd may need minutes."""
    monkeypatch.setattr(container_answers, "HANG_UP_SECONDS", 0.05)
    daemon = SimulatedDaemon({})
    async with gateway(tmp_path, daemon) as path:
        _, writer = await asyncio.open_unix_connection(str(path))
        writer.write(get("/v1.41/containers/slow/json?size=1"))
        while not daemon.requests:
            await asyncio.sleep(0.01)
        writer.close()
        await asyncio.wait_for(daemon.gone.wait(), 60)


async def test_variables_of_the_image_come_back(tmp_path: Path) -> None:
    """One that the gateway's own had replaced: tools compare an image's with the container's."""
    image = {"Config": {"Env": ["PATH=/bin", "KRB5CCNAME=FILE:/image"]}}
    daemon = SimulatedDaemon(
        {
            "/v1.41/containers/a/json": with_length(TEXT),
            "/v1.41/images/sha256%3A0/json": with_length(json.dumps(image).encode()),
        }
    )
    async with gateway(tmp_path, daemon) as path:
        found = body_of(await ask(path, get("/v1.41/containers/a/json")))
    assert found["Config"]["Env"] == ["A=1", "KRB5CCNAME=FILE:/image"]


@pytest.mark.parametrize("target", ["/containers/json?all=1", "/v1.51/system/df"])
async def test_lists(tmp_path: Path, target: str) -> None:
    annotations = {"credspec.dev/spec": "file://www.json", "a": "b"}
    listed = [{"Id": "a", "HostConfig": {"NetworkMode": "none", "Annotations": annotations}}]
    document = {"Containers": listed} if "df" in target else listed
    found = body_of(await through(tmp_path, with_length(json.dumps(document).encode()), target))
    (container,) = found["Containers"] if "df" in target else found
    assert container["HostConfig"] == {"NetworkMode": "none", "Annotations": {"a": "b"}}


def commit(body: bytes, query: str = "container=a&repo=x") -> bytes:
    length = b"Content-Length: %d" % len(body)
    return get(f"/v1.41/commit?{query}", length, method="POST") + body


@pytest.mark.parametrize("body", [b"", b"null\n", b'{"Env": ["B=2"], "User": "x"}', b"{}"])
async def test_a_commit_names_the_added_variables_without_a_value(
    tmp_path: Path, body: bytes
) -> None:
    """A name without a value is one that containers of the image do not have."""
    daemon = SimulatedDaemon(
        {
            "/v1.41/containers/a/json": with_length(TEXT),
            "/v1.41/commit": with_length(b'{"Id": "sha256:1"}'),
        }
    )
    async with gateway(tmp_path, daemon) as path:
        found = await ask(path, commit(body))
    assert found.endswith(b'{"Id": "sha256:1"}')
    head, _, sent = daemon.requests[-1].partition(b"\r\n\r\n")
    assert b"Content-Type: application/json" in head
    given = json.loads(body or b"null")
    document = json.loads(sent)
    before = ["A=1"] if given is None else given.get("Env", [])
    assert document.pop("Env") == [*before, "KRB5CCNAME", "KRB5_CONFIG"]
    # Without a configuration, it is the container's own.
    assert document == {k: v for k, v in (given or {}).items() if k != "Env"}


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("container=other", b'{ "Env": [] }'),
        ("container=../../a", b"null"),
        ("repo=x", b""),
        ("container=a", b"[rubbish"),
        ("container=a", b'{"Env": 5}'),
    ],
)
async def test_other_commits_are_not_touched(tmp_path: Path, query: str, body: bytes) -> None:
    daemon = SimulatedDaemon({"/v1.41/containers/a/json": with_length(TEXT)})
    async with gateway(tmp_path, daemon) as path:
        await ask(path, commit(body, query))
    assert daemon.requests[-1].partition(b"\r\n\r\n")[2] == body
    assert b"/commit?" in daemon.requests[-1]
