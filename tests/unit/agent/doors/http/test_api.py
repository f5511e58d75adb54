"""The agent's API on a real Unix socket; the domain behind it is scripted, no network."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientSession, UnixConnector

from credspec.agent.audit import AuditLog
from credspec.agent.doors.http.api import make_api
from credspec.agent.doors.http.server import serving_http
from credspec.agent.identities.identities import Identities
from credspec.agent.identities.identity import Identity
from credspec.agent.leases.journal import Journal
from credspec.agent.leases.leases import Leases
from credspec.config.policy import PolicyInForce
from credspec.errors import CredspecError, InvalidSpecError, NotPermittedError, UnreachableError
from credspec.session.domain_session import DomainSession
from credspec.sockets.listener import listen

LEASE = "0" * 32
BODY = {"spec": "file://x.json", "container": "c", "runtime_state": "/s", "uid": 0, "gid": 0}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[ClientSession]:
    def no_domain(name: str, _source: object) -> DomainSession:
        raise AssertionError(f"{name} must not be asked")

    async def ignore(identity: Identity) -> None:
        del identity

    identities = Identities(no_domain, ignore)
    leases = Leases(
        identities,
        Journal(tmp_path),
        leases_directory=tmp_path,
        spec_directory=tmp_path,
        audit=AuditLog(tmp_path / "audit.jsonl"),
    )
    failure = tmp_path / "failure"
    api = make_api(
        leases,
        identities,
        reload_failure=lambda: failure.read_text() if failure.exists() else None,
    )
    path = tmp_path / "s"
    with listen(path, others=False) as listener:
        async with (
            serving_http(api, listener, PolicyInForce()),
            ClientSession(connector=UnixConnector(str(path)), base_url="http://agent") as session,
        ):
            yield session
    await identities.close()


async def refused(client: ClientSession, method: str, path: str, body: object = None) -> dict:
    data = body if isinstance(body, bytes | None) else json.dumps(body)
    async with client.request(method, path, data=data) as response:
        assert response.status >= 400
        assert response.content_type == "application/problem+json"
        document = await response.json()
        assert document["status"] == response.status
        return document


async def test_empty(client: ClientSession) -> None:
    async with client.get("/v1/leases") as response:
        assert await response.json() == {"leases": []}
    async with client.get("/v1/identities") as response:
        assert await response.json() == {"acquisitions": 0, "identities": []}
    async with client.get("/healthz") as response:
        assert response.status == 200
    async with client.get("/metrics") as response:
        assert "credspec_leases 0.0" in await response.text()
    async with client.delete(f"/v1/leases/{LEASE}") as response:
        assert response.status == 204


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        [],
        {},
        BODY | {"uid": -1},
        BODY | {"uid": "0"},
        BODY | {"uid": True},
        BODY | {"gid": 2**32},
        BODY | {"spec": None},
        BODY | {"runtime_state": "relative"},
        BODY | {"runtime_state": "/a\0b"},
    ],
)
async def test_bodies(client: ClientSession, body: object) -> None:
    document = await refused(client, "PUT", f"/v1/leases/{LEASE}", body)
    assert document["title"] == "usage"


async def test_a_body_that_is_too_large(client: ClientSession) -> None:
    document = await refused(client, "PUT", f"/v1/leases/{LEASE}", b"x" * (300 * 1024))
    assert document["status"] == 413


@pytest.mark.parametrize("lease", ["x", "0" * 31, "A" * 32, "..%2f..%2fetc", "%00", "0" * 33])
async def test_lease_ids(client: ClientSession, lease: str) -> None:
    for method in ("GET", "DELETE", "PUT"):
        document = await refused(client, method, f"/v1/leases/{lease}", BODY)
        assert document["problems"][0]["code"] in {"lease-id-invalid", "http-404", "http-400"}


async def test_a_spec_that_does_not_exist(client: ClientSession) -> None:
    document = await refused(client, "PUT", f"/v1/leases/{LEASE}", BODY)
    error = CredspecError.from_json(document)
    assert isinstance(error, InvalidSpecError)
    assert error.code == "spec-file-unreadable"


async def test_unknown_lease_and_unknown_path(client: ClientSession) -> None:
    document = await refused(client, "GET", f"/v1/leases/{LEASE}")
    assert document["problems"][0]["code"] == "lease-not-found"
    assert (await refused(client, "GET", "/v2/x"))["problems"][0]["code"] == "http-404"


async def test_denials_are_in_the_audit_log(client: ClientSession, tmp_path: Path) -> None:
    await refused(client, "PUT", f"/v1/leases/{LEASE}", BODY)
    await refused(client, "PUT", f"/v1/leases/{LEASE}", BODY | {"spec": "raw://{}"})
    entries = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [entry["errors"] for entry in entries] == [
        ["spec-file-unreadable"],
        ["policy-spec-source"],
    ]
    for entry in entries:
        assert entry["decision"] == "denied"
        assert (entry["uid"], entry["pid"]) == (os.geteuid(), os.getpid())
        assert (entry["container"], entry["lease"]) == ("c", LEASE)
    assert entries[1]["spec"].startswith("raw:sha256:")


async def test_whether_it_can_serve(client: ClientSession) -> None:
    async with client.get("/readyz") as response:
        assert (response.status, await response.json()) == (200, {"status": "ready"})


async def test_why_the_last_reload_failed(client: ClientSession, tmp_path: Path) -> None:
    (tmp_path / "failure").write_text("config-not-toml")
    async with client.get("/healthz") as response:
        health = {"status": "ok", "reload_error": "config-not-toml"}
        assert (response.status, await response.json()) == (200, health)
    (tmp_path / "failure").unlink()
    async with client.get("/healthz") as response:
        assert await response.json() == {"status": "ok"}


async def test_metrics(client: ClientSession) -> None:
    async with client.get("/metrics") as response:
        text = await response.text()
    for line in ("credspec_leases 0.0", "credspec_acquisitions_total 0.0"):
        assert line in text.splitlines()


async def test_other_users_are_refused(
    client: ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's word on the caller is replaced here, since the test runs as one user."""
    import struct

    real = socket.socket.getsockopt

    def as_nobody(self: socket.socket, level: int, name: int, *rest: int) -> object:
        if name == socket.SO_PEERCRED:
            return struct.pack("3i", 1, 65534, 65534)
        return real(self, level, name, *rest)

    monkeypatch.setattr("asyncio.trsock.TransportSocket.getsockopt", as_nobody)
    document = await refused(client, "GET", "/v1/leases")
    assert document["problems"][0]["code"] == "caller-not-permitted"


@pytest.mark.parametrize(
    ("error", "after"),
    [
        (UnreachableError.of("dns-unreachable", "x"), "1"),
        (NotPermittedError.of("policy-account", "x"), None),
        (CredspecError.of("journal-unwritable", "x"), None),
    ],
)
async def test_what_passes_by_itself_says_when_to_ask_again(
    client: ClientSession, monkeypatch: pytest.MonkeyPatch, error: CredspecError, after: str | None
) -> None:
    async def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Leases, "make", fail)
    async with client.put(f"/v1/leases/{LEASE}", data=json.dumps(BODY)) as response:
        assert response.status == error.http_status
        assert response.headers.get("Retry-After") == after
