"""The API of a running agent, checked against its own description and by hostile callers."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import requests.adapters
import schemathesis
import urllib3
import urllib3.connection
from hypothesis import HealthCheck, settings
from schemathesis.pytest.lazy import get_all_tests
from schemathesis.specs.openapi.checks import positive_data_acceptance

from credspec.agent.doors.http.openapi import openapi_document
from credspec.lab.domain import Lab
from support.agent.agent_process import AgentProcess

LEASE = "0" * 31 + "1"
DESCRIPTION = openapi_document()
OPERATIONS = [
    (method, path)
    for path, item in DESCRIPTION["paths"].items()
    for method in item
    if method in {"delete", "get", "post", "put"}
]


@pytest.fixture(scope="module")
def agent(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    found = AgentProcess(lab, tmp_path_factory.mktemp("api"))
    found.start()
    found.mount(1)
    found.put(1)
    yield found
    found.delete(1)
    assert found.lease_containers() == []
    found.close()


class OverSocket(requests.adapters.HTTPAdapter):
    """Sends requests over a Unix socket."""

    def __init__(self, path: Path) -> None:
        class Connection(urllib3.connection.HTTPConnection):
            def _new_conn(self) -> socket.socket:
                connected = socket.socket(socket.AF_UNIX)
                connected.settimeout(30)
                connected.connect(str(path))
                return connected

        class Pool(urllib3.HTTPConnectionPool):
            ConnectionCls = Connection

        self._pool = Pool("credspec")
        super().__init__()

    def get_connection_with_tls_context(
        self, *_: object, **__: object
    ) -> urllib3.HTTPConnectionPool:
        return self._pool


@pytest.fixture(scope="module")
def session(agent: AgentProcess) -> Iterator[requests.Session]:
    with requests.Session() as found:
        found.mount("http://credspec", OverSocket(agent.run_directory / "agent.sock"))
        yield found


def answers_as_described(case: schemathesis.Case, session: requests.Session) -> None:
    case.call_and_validate(
        base_url="http://credspec",
        session=session,
        # Whether a spec is good is more than a schema of the request can say.
        excluded_checks=[positive_data_acceptance],
    )


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_it_answers_as_its_description_says(
    method: str, path: str, session: requests.Session
) -> None:
    # The cases take seconds to make: not while tests are collected, which each worker does.
    schema = schemathesis.openapi.from_dict(DESCRIPTION).include(method=method, path=path)
    chosen = settings(
        max_examples=100,
        derandomize=True,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    (test,) = get_all_tests(
        schema=schema, test_func=answers_as_described, settings=chosen, given_kwargs=None
    )
    _, run = test.ok()
    run(session=session)


class Raw:
    """A connection on which anything can be said."""

    def __init__(self, agent: AgentProcess) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(str(agent.run_directory / "agent.sock"))

    def say(self, text: bytes) -> Raw:
        self.socket.sendall(text)
        return self

    def status(self) -> int:
        """Return the status of the answer; 0 if the agent hung up without one."""
        answer = http.client.HTTPResponse(self.socket)
        try:
            answer.begin()
        except (http.client.HTTPException, ConnectionError):
            return 0
        finally:
            self.socket.close()
        return answer.status


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize(
    "lease_id",
    [
        *("..", "%2e%2e", "%2e%2e%2f%2e%2e%2fetc", f"{LEASE}%2f..", f"{LEASE}/../{LEASE}", "a%2Fb"),
        *("%00", f"{LEASE}%00", "A" * 32, "0" * 33, "a" * 7000),
        *("%F0%9F%98%80", "%C0%AF", "*", "%", "%zz", " "),
    ],
)  # fmt: skip
def test_an_id_that_is_none_reaches_no_file(
    agent: AgentProcess, method: str, lease_id: str
) -> None:
    before = sorted(path.name for path in agent.run_directory.rglob("*"))
    body = b'{"spec":"file://one.json","container":"c","runtime_state":"/x","uid":0,"gid":0}'
    request = f"{method} /v1/leases/{lease_id} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
    status = Raw(agent).say(request.encode() + b"\r\n\r\n" + body).status()
    # A malformed request line may be answered by hanging up, but by nothing that succeeds.
    assert status == 0 or 400 <= status < 500
    assert sorted(path.name for path in agent.run_directory.rglob("*")) == before
    assert agent.lease_containers() == ["container1"]


HEAD = f"PUT /v1/leases/{LEASE} HTTP/1.1\r\nHost: x\r\n".encode()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (HEAD + b"Content-Length: 10000000000\r\n\r\n", {413}),
        (HEAD + b"Content-Length: 300000\r\n\r\n" + b"[" * 300000, {413}),
        (HEAD + b"Content-Length: 200000\r\n\r\n" + b"[" * 200000, {400}),
        (HEAD + b"Content-Length: -1\r\n\r\n", {400}),
        (HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", {411}),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", {411}),
        (HEAD + b"X: " + b"y" * 100_000 + b"\r\n\r\n", {400}),
        (HEAD + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd", {415}),
        (HEAD + b"Content-Type: text/plain; charset=no\r\nContent-Length: 2\r\n\r\n{}", {415}),
        (b"\0\1\2\3\r\n\r\n", {400}),
        (b"GET / HTTP/9.9\r\n\r\n", {400, 404, 505}),
    ],
)
def test_a_request_that_is_none_is_refused(
    agent: AgentProcess, said: bytes, expected: set[int]
) -> None:
    connection = Raw(agent)
    # It may be refused before all was said.
    with contextlib.suppress(ConnectionError):
        connection.say(said)
    assert connection.status() in expected
    assert agent.lease_containers() == ["container1"]


def test_bodies_that_never_end_hold_up_nobody_and_are_given_up(agent: AgentProcess) -> None:
    slow = [Raw(agent).say(HEAD + b"Content-Length: 100\r\n\r\n{") for _ in range(50)]
    answers: list[int] = []
    waiting = threading.Thread(target=lambda: answers.append(slow[0].status()))
    waiting.start()
    rounds = 0
    while waiting.is_alive():
        agent.client.get("/healthz")
        agent.put(1)
        rounds += waiting.is_alive()
    assert answers == [408]
    assert rounds > 10
    assert {connection.status() for connection in slow[1:]} == {408}


def test_a_caller_that_closes_halfway_leaves_nothing(agent: AgentProcess) -> None:
    half = Raw(agent).say(HEAD + b"Content-Length: 100\r\n\r\n{")
    half.socket.shutdown(socket.SHUT_WR)
    assert half.status() in {0, 400}
    gone = Raw(agent).say(HEAD + b"Content-Length: 100\r\n\r\n{")
    gone.socket.close()
    # The lease is made although nobody waits for the answer: the runtime's delete removes it.
    body = b'{"spec":"file://one.json"'
    Raw(agent).say(HEAD + b"Content-Length: 25\r\n\r\n" + body).socket.close()
    assert agent.lease_containers() == ["container1"]
    assert agent.client.get("/healthz") == {"status": "ok"}
