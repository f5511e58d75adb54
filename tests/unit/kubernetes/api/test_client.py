"""Questions to a simulated API server: what is asked again, what is an answer, what ends it."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from credspec.errors import CredspecError, NotFoundError, UnreachableError
from credspec.kubernetes.api import client as client_module
from credspec.kubernetes.api.client import (
    MAX_ANSWER_BYTES,
    ApiClient,
    ApiConflictError,
    ApiRefusedError,
)
from credspec.kubernetes.api.reviews import Decision, review_use
from credspec.kubernetes.api.server import ApiServer
from support.kubernetes.simulated_api_server import SimulatedApiServer, credspec, status
from support.servers.certificate_authority import Authority

PATH = "/apis/windows.k8s.io/v1/gmsacredentialspecs/webapp01"


@pytest.fixture
async def server(tmp_path: Path, authority: Authority) -> AsyncIterator[SimulatedApiServer]:
    found = SimulatedApiServer(tmp_path, authority)
    async with found.serving():
        yield found


class Client(ApiClient):
    """A client whose pauses take no time."""

    def __init__(self, server: ApiServer, seconds: float = 30.0) -> None:
        self.pauses: list[float] = []

        async def sleep(seconds: float) -> None:
            self.pauses.append(seconds)

        super().__init__(server, seconds=seconds, sleep=sleep, chance=lambda: 0.5)


@pytest.fixture
async def client(server: SimulatedApiServer) -> AsyncIterator[Client]:
    found = Client(server.server)
    yield found
    await found.close()


async def test_an_object_is_returned_as_it_was_sent(
    server: SimulatedApiServer, client: Client
) -> None:
    server.objects["webapp01"] = credspec("WebApp01")
    assert b'"WebApp01"' in await client.get(PATH)
    assert server.asked == [("GET", PATH)]


async def test_what_is_not_there(client: Client) -> None:
    with pytest.raises(NotFoundError, match="not found"):
        await client.get(PATH)
    assert client.questions == 1, "no is an answer"


@pytest.mark.parametrize("code", [400, 401, 403, 409, 422])
async def test_a_refusal_is_not_asked_again(
    server: SimulatedApiServer, client: Client, code: int
) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return status(code, "no\nFORGED LINE")

    server.before = refuse
    with pytest.raises(ApiRefusedError) as caught:
        await client.post(PATH, {})
    assert client.questions == 1
    assert f"{code}: no" in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(message=st.text(st.characters(codec="utf-8", categories=["Cc", "Cf", "Zl", "Zp", "L"])))
async def test_no_message_forges_a_line_or_moves_the_cursor(
    server: SimulatedApiServer, message: str
) -> None:
    """Neither a refusal's nor that of a review, wherever they are shown."""

    async def refuse(_: web.Request) -> web.Response:
        return status(403, message)

    async def review(_: web.Request) -> web.Response:
        return web.json_response({"status": {"allowed": False, "reason": message}})

    client = Client(server.server)
    server.before = refuse
    with pytest.raises(ApiRefusedError) as caught:
        await client.get(PATH)
    (problem,) = caught.value.problems
    assert problem.found.isprintable()
    server.before = review
    decision = await review_use(client, "shop", "web", "webapp01")
    assert decision.reason.isprintable()
    assert len(decision.reason) == len(message[:300])
    await client.close()


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
async def test_what_may_pass_is_asked_again(
    server: SimulatedApiServer, client: Client, code: int
) -> None:
    answers = [code] * 3

    async def fail(_: web.Request) -> web.Response | None:
        return status(answers.pop(), "later") if answers else None

    server.before = fail
    server.objects["webapp01"] = credspec("WebApp01")
    assert await client.get(PATH)
    assert client.questions == 4
    assert client.pauses == sorted(client.pauses)
    assert len(client.pauses) == 3


async def test_it_gives_up(server: SimulatedApiServer, client: Client) -> None:
    async def fail(_: web.Request) -> web.Response:
        return status(503, "etcd has no leader", **{"Retry-After": "30"})

    server.before = fail
    with pytest.raises(UnreachableError, match="503: etcd has no leader") as caught:
        await client.get(PATH)
    assert caught.value.code == "kubernetes-api-unreachable"
    assert client.questions == 4
    assert max(client.pauses) <= 2.0, "the kubelet asks again, too"


@pytest.mark.parametrize(
    ("after", "pauses"),
    [
        ("1", [1.0, 1.0, 1.0]),
        ("0", [0.0, 0.0, 0.0]),
        ("3600", [2.0, 2.0, 2.0]),
        *((text, [0.1, 0.3, 0.9]) for text in ("", "-1", "1.5", "soon", "inf", "9" * 4000)),
    ],
)
async def test_the_server_says_how_long_to_wait_within_limits(
    server: SimulatedApiServer, client: Client, after: str, pauses: list[float]
) -> None:
    async def fail(_: web.Request) -> web.Response:
        return status(429, "too many requests", **{"Retry-After": after})

    server.before = fail
    with pytest.raises(UnreachableError, match="too many requests"):
        await client.get(PATH)
    assert client.pauses == pytest.approx(pauses)


async def test_nobody_listens(server: SimulatedApiServer, client: Client) -> None:
    server_of_nobody = ApiServer("https://127.0.0.1:1", *_files(server))
    nobody = Client(server_of_nobody)
    with pytest.raises(UnreachableError, match=r"https://127\.0\.0\.1:1: "):
        await nobody.get(PATH)
    await nobody.close()


async def test_one_that_never_answers(server: SimulatedApiServer) -> None:
    async def hang(_: web.Request) -> None:
        await asyncio.sleep(30)

    server.before = hang
    client = Client(server.server, seconds=0.3)
    with pytest.raises(UnreachableError, match=r"no answer within 0\.3 s"):
        await client.get(PATH)
    await client.close()


async def test_a_connection_that_is_dead_leaves_time_for_another(
    server: SimulatedApiServer,
) -> None:
    """As after a change of the node's network: what was sent is never answered."""
    hung = asyncio.Event()

    async def hang_once(_: web.Request) -> None:
        if not hung.is_set():
            hung.set()
            await asyncio.sleep(30)

    server.before = hang_once
    server.objects["webapp01"] = credspec("WebApp01")
    client = Client(server.server, seconds=4.0)
    assert await client.get(PATH)
    assert client.questions == 2
    await client.close()


async def test_a_restarted_server_is_reached_again(tmp_path: Path, authority: Authority) -> None:
    server = SimulatedApiServer(tmp_path, authority)
    server.objects["webapp01"] = credspec("WebApp01")
    async with server.serving():
        client = Client(server.server)
        first = await client.get(PATH)
    with pytest.raises(UnreachableError):
        await client.get(PATH)
    async with server.serving():
        assert await client.get(PATH) == first
    await client.close()


async def test_a_server_of_another_authority(
    server: SimulatedApiServer, other_authority: Authority
) -> None:
    """It gets no token, and an authority that is replaced counts without a restart."""
    ca_file = server.token_file.with_name("ca.crt")
    ca_file.write_bytes(other_authority.certificate.read_bytes())
    client = Client(ApiServer(server.server.url, ca_file, server.token_file))
    with pytest.raises(UnreachableError, match="TLS: "):
        await client.get(PATH)
    assert server.asked == []
    ca_file.write_bytes(server.server.ca_file.read_bytes())
    with pytest.raises(NotFoundError):
        await client.get(PATH)
    await client.close()


async def test_a_replaced_token_counts_at_once(server: SimulatedApiServer, client: Client) -> None:
    server.token_file.write_text("another")
    with pytest.raises(NotFoundError):
        await client.get(PATH)


async def test_without_a_token_nothing_is_asked(server: SimulatedApiServer, client: Client) -> None:
    server.token_file.unlink()
    with pytest.raises(CredspecError, match="kubernetes-token-file"):
        await client.get(PATH)
    assert server.asked == []


async def test_an_answer_that_is_too_long(
    server: SimulatedApiServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_ANSWER_BYTES > 1.5 * 2**20
    monkeypatch.setattr(client_module, "MAX_ANSWER_BYTES", 1000)

    async def flood(_: web.Request) -> web.Response:
        return web.Response(body=b"x" * 100_000)

    server.before = flood
    with pytest.raises(CredspecError, match="kubernetes-api-answer"):
        await client.get(PATH)


@pytest.mark.parametrize("body", [b"", b"[]", b"no", b"[" * 100_000, b"null"])
async def test_an_answer_that_is_no_object(
    server: SimulatedApiServer, client: Client, body: bytes
) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body)

    server.before = answer
    with pytest.raises(CredspecError, match="kubernetes-api-answer"):
        await client.post(PATH, {})


async def test_a_compressed_answer_is_not_asked_for_and_not_unpacked(
    server: SimulatedApiServer, client: Client
) -> None:
    encodings = []

    async def answer(request: web.Request) -> web.Response:
        encodings.append(request.headers["Accept-Encoding"])
        bomb = gzip.compress(b" " * 2**24)
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    server.before = answer
    with pytest.raises(CredspecError, match="kubernetes-api-answer"):
        await client.get_object(PATH)
    assert encodings == ["identity"]


async def test_changes_are_sent_as_what_they_are(
    server: SimulatedApiServer, client: Client
) -> None:
    sent = []

    async def answer(request: web.Request) -> web.Response:
        sent.append((request.method, request.content_type, await request.json()))
        return web.json_response({"kind": "Secret"})

    server.before = answer
    replacement = {"metadata": {"resourceVersion": "1"}}
    changes = [{"op": "test", "path": "/metadata/resourceVersion", "value": "1"}]
    assert await client.put("/a", replacement) == {"kind": "Secret"}
    assert await client.patch("/a", changes) == {"kind": "Secret"}
    assert await client.post("/a", replacement) == {"kind": "Secret"}
    assert sent == [
        ("PUT", "application/json", replacement),
        ("PATCH", "application/json-patch+json", changes),
        ("POST", "application/json", replacement),
    ]


async def test_a_change_of_somebody_else_is_a_conflict(
    server: SimulatedApiServer, client: Client
) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return status(409, "the object has been modified")

    server.before = refuse
    for change in (client.put("/a", {}), client.patch("/a", []), client.post("/a", {})):
        with pytest.raises(ApiConflictError, match="has been modified") as caught:
            await change
        assert caught.value.code == "kubernetes-api-conflict"
    assert client.questions == 3


async def test_it_asks_no_more_often_than_it_may(server: SimulatedApiServer) -> None:
    async def fail(_: web.Request) -> web.Response:
        return status(503, "later")

    async def sleep(_: float) -> None:
        pass

    server.before = fail
    client = ApiClient(server.server, attempts=2, sleep=sleep)
    with pytest.raises(UnreachableError):
        await client.get(PATH)
    assert client.questions == 2
    await client.close()


async def test_redirects_are_not_followed(server: SimulatedApiServer, client: Client) -> None:
    async def elsewhere(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "https://127.0.0.1:1/"})

    server.before = elsewhere
    with pytest.raises(ApiRefusedError, match="302"):
        await client.get(PATH)


async def test_a_review_asks_for_the_pods_namespace(
    server: SimulatedApiServer, client: Client
) -> None:
    """Although the resource has none: else no RoleBinding counts."""
    server.bound.add(("shop", "web", "webapp01"))
    found = await review_use(client, "shop", "web", "webapp01")
    assert found == Decision(is_allowed=True, reason="RBAC: allowed by RoleBinding")
    assert server.reviews == [
        {
            "user": "system:serviceaccount:shop:web",
            "groups": [
                "system:serviceaccounts",
                "system:serviceaccounts:shop",
                "system:authenticated",
            ],
            "resourceAttributes": {
                "namespace": "shop",
                "verb": "use",
                "group": "windows.k8s.io",
                "version": "v1",
                "resource": "gmsacredentialspecs",
                "name": "webapp01",
            },
        }
    ]
    for other in (("shop", "other", "webapp01"), ("x", "web", "webapp01"), ("shop", "web", "y")):
        assert not (await review_use(client, *other)).is_allowed


@pytest.mark.parametrize("name", ["", "../kube-system", "a/b", "A", "a?b", "a%2fb"])
async def test_a_name_never_becomes_another_path(
    server: SimulatedApiServer, client: Client, name: str
) -> None:
    assert await review_use(client, name, "web", "webapp01") == Decision(is_allowed=False)
    assert await review_use(client, "shop", name, "webapp01") == Decision(is_allowed=False)
    assert server.asked == []


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"allowed": True}, True),
        ({"allowed": True, "denied": False}, True),
        ({"allowed": True, "evaluationError": "x"}, True),
        ({"allowed": True, "denied": True}, False),
        ({"allowed": True, "denied": ["x"]}, False),
        ({"allowed": False}, False),
        ({"allowed": False, "reason": 5}, False),
        ({"allowed": False, "evaluationError": "webhook is away"}, "kubernetes-review-incomplete"),
        ({"allowed": "true"}, "kubernetes-api-answer"),
        ({"allowed": 1}, "kubernetes-api-answer"),
        ({}, "kubernetes-api-answer"),
        (None, "kubernetes-api-answer"),
        ([], "kubernetes-api-answer"),
    ],
)
async def test_what_a_review_says(
    server: SimulatedApiServer, client: Client, answer: object, expected: bool | str
) -> None:
    """A no counts only if nothing of the cluster failed: a living pod would lose its tickets."""

    async def reply(_: web.Request) -> web.Response:
        return web.json_response({"kind": "LocalSubjectAccessReview", "status": answer})

    server.before = reply
    if isinstance(expected, str):
        with pytest.raises(CredspecError, match=expected):
            await review_use(client, "shop", "web", "webapp01")
    else:
        assert (await review_use(client, "shop", "web", "webapp01")).is_allowed is expected


def _files(server: SimulatedApiServer) -> tuple[Path, Path]:
    return server.server.ca_file, server.token_file
