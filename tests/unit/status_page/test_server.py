"""The server by real HTTP: what it refuses, its headers, its stream."""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from credspec.status_page.doctor_run import DoctorRun
from credspec.status_page.feed import Feed
from credspec.status_page.server import StatusServer


class SimulatedWatcher:
    def identity(self, name: str) -> tuple[str, str] | None:
        return ("web", "d.test") if name == "web@d.test" else None


def program(directory: Path, text: str) -> Path:
    path = directory / "credspec"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def doctor(tmp_path: Path) -> Path:
    return program(tmp_path, 'echo "{\\"steps\\": [], \\"arguments\\": \\"$*\\"}"')


@pytest.fixture
def server(doctor: Path) -> Iterator[StatusServer]:
    feed = Feed()
    found = StatusServer(0, feed, SimulatedWatcher(), DoctorRun(doctor, feed))  # type: ignore[arg-type]
    serving = threading.Thread(target=found.serve_forever, args=(0.01,))
    serving.start()
    yield found
    feed.close()
    found.shutdown()
    serving.join()
    found.server_close()


def ask(
    server: StatusServer, path: str, method: str = "GET", host: str | None = None
) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
    connection.endheaders()
    return connection.getresponse()


@pytest.fixture
def page(server: StatusServer) -> str:
    answer = ask(server, server.address.partition(str(server.server_port))[2])
    assert answer.status == 303
    return str(answer.getheader("Location"))


def test_it_listens_on_this_host_only(server: StatusServer) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_the_page_and_its_parts_have_a_strict_policy(server: StatusServer, page: str) -> None:
    for name, kind in (
        ("", "text/html"),
        ("style.css", "text/css"),
        ("script.js", "text/javascript"),
        ("icon.svg", "image/svg+xml"),
    ):
        answer = ask(server, page + name)
        assert answer.status == 200
        assert str(answer.getheader("Content-Type")).startswith(kind)
        policy = str(answer.getheader("Content-Security-Policy"))
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
        assert "unsafe" not in policy
        assert answer.getheader("Referrer-Policy") == "no-referrer"
        assert answer.getheader("Cache-Control") == "no-store"
        assert b"http" not in answer.read().replace(b"http://www.w3.org/2000/svg", b"")


def test_without_the_token_everything_is_refused(server: StatusServer, page: str) -> None:
    for path in ("/", "/?token=", "/?token=x", "/feed", "/x/feed", page[:-1], f"/x{page}", "//"):
        assert ask(server, path).status == 403
    assert ask(server, "/doctor", "POST").status == 403
    # The address that was printed has been used.
    assert ask(server, server.address.partition(str(server.server_port))[2]).status == 403


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), max_size=60))
def test_any_path_is_answered_and_refused(server: StatusServer, path: str) -> None:
    assert ask(server, f"/{path}").status in {403, 400}


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1:1"])
def test_another_name_for_this_server_is_refused(
    server: StatusServer, page: str, host: str
) -> None:
    assert ask(server, page, host=host).status == 403
    assert ask(server, f"{page}doctor", "POST", host=host).status == 403
    assert ask(server, page, host=f"localhost:{server.server_port}").status == 200


def test_nothing_else_is_served(server: StatusServer, page: str) -> None:
    for name in ("../access.py", "%2e%2e/access.py", "index.html", "feed/", "/etc/passwd"):
        assert ask(server, page + name).status == 404
    assert ask(server, page, "DELETE").status == 501


def events(answer: http.client.HTTPResponse) -> Iterator[tuple[str, Any]]:
    while line := answer.readline().decode().rstrip("\n"):
        data = answer.readline().decode()
        yield line.removeprefix("event: "), json.loads(data.removeprefix("data: "))
        assert answer.readline() == b"\n"


def test_the_stream_goes_on(server: StatusServer, page: str) -> None:
    server.feed.put("state", {"text": "line\nline"})
    answer = ask(server, f"{page}feed")
    assert answer.getheader("Content-Type") == "text/event-stream"
    stream = events(answer)
    assert next(stream) == ("state", {"text": "line\nline"})
    server.feed.add_events([{"event": "x"}])
    assert next(stream) == ("events", [{"event": "x"}])
    server.feed.close()
    assert answer.read().strip(b":\n") == b""


@pytest.mark.parametrize(
    ("query", "arguments"),
    [("", ""), ("?identity=web@d.test", " --account=web --domain=d.test")],
)
def test_the_doctor(server: StatusServer, page: str, query: str, arguments: str) -> None:
    stream = events(ask(server, f"{page}feed"))
    assert ask(server, f"{page}doctor{query}", "POST").status == 202
    ended = next(content for _, content in stream if not content["running"])
    assert ended["arguments"] == f"check --output json{arguments}"


def test_the_doctor_of_an_identity_that_is_not_held(server: StatusServer, page: str) -> None:
    assert ask(server, f"{page}doctor?identity=--explain@x", "POST").status == 404


def test_the_doctor_runs_once_at_a_time(server: StatusServer, page: str, doctor: Path) -> None:
    fifo = doctor.with_name("fifo")
    os.mkfifo(fifo)
    program(doctor.parent, f'read line <"{fifo}"; echo no JSON; echo "it failed" >&2')
    stream = events(ask(server, f"{page}feed"))
    assert ask(server, f"{page}doctor", "POST").status == 202
    assert ask(server, f"{page}doctor", "POST").status == 409
    fifo.write_text("go\n")
    ended = next(content for _, content in stream if not content["running"])
    assert ended["error"] == "it failed"


def test_a_doctor_that_found_faults_is_shown_and_one_that_is_missing_said(
    server: StatusServer, page: str, doctor: Path
) -> None:
    """It exits with 1 then, which is no failure of the run."""
    program(doctor.parent, 'echo "{\\"steps\\": [1]}"; exit 1')
    stream = events(ask(server, f"{page}feed"))
    assert ask(server, f"{page}doctor", "POST").status == 202
    ended = next(content for _, content in stream if not content["running"])
    assert ended["steps"] == [1]
    assert datetime.fromisoformat(ended["ended"]).tzinfo is not None
    doctor.unlink()
    while ask(server, f"{page}doctor", "POST").status != 202:
        time.sleep(0.01)  # the run's thread ends after its news
    ended = next(content for _, content in stream if not content["running"])
    assert ended["error"] == "credspec check cannot be run: No such file or directory"


class NoSlots:
    def acquire(self, *, blocking: bool) -> bool:
        return blocking

    def release(self) -> None:
        pass


def test_too_many_connections_are_closed(
    server: StatusServer, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        full.setattr(server, "slots", NoSlots())
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            ask(server, page)
    assert ask(server, page).status == 200
