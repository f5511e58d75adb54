"""The account provider with real TLS, asked by our own client of Rancher's API and by hand."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.account_provider import server as account_service
from credspec.account_provider.server import AccountService, account_service_settings
from credspec.errors import CredspecError
from credspec.providers.rancher import RancherProvider

SECRET = "Very-Secret-1!"
GOOD = b"GET /provider HTTP/1.1\r\nHost: localhost\r\nobject: reader\r\n\r\n"


@pytest.fixture
def settings(tmp_path: Path, authority: Any) -> dict[str, Any]:
    certificate, key = authority.issue("localhost")
    key.chmod(0o600)
    accounts = tmp_path / "accounts"
    accounts.mkdir()
    for name in ("reader", "other"):
        document = {"username": name, "password": SECRET, "domainName": "contoso.com"}
        (accounts / name).write_text(json.dumps(document))
        (accounts / name).chmod(0o600)
    return {
        "listen": "127.0.0.1:0",
        "certificate": str(certificate),
        "key": str(key),
        "client_ca": str(authority.certificate),
        "directory": str(accounts),
        "clients": {"host1": "reader", "host2": "other", "host3": "missing"},
    }


@pytest.fixture
async def service(settings: dict[str, Any]) -> AsyncIterator[tuple[int, list[Any]]]:
    told: list[Any] = []
    made = AccountService(account_service_settings(settings), lambda *what: told.append(what))
    server = await made.start()
    yield server.sockets[0].getsockname()[1], told
    server.close()
    await server.wait_closed()


async def ask(
    port: int, authority: Any, client: str | None, data: bytes, trusted: Any = None
) -> bytes:
    context = ssl.create_default_context(cafile=str((trusted or authority).certificate))
    if client is not None:
        context.load_cert_chain(*authority.issue(client))
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="localhost"
    )
    try:
        writer.write(data)
        return await reader.read()
    finally:
        writer.close()


async def test_our_own_client_gets_its_secret(
    service: Any, settings: dict[str, Any], tmp_path: Path, authority: Any
) -> None:
    port, told = service
    client = tmp_path / "gmsa/apps/ssl"
    (client / "client").mkdir(parents=True)
    (client / "ca").mkdir()
    certificate, key = authority.issue("host1")
    (client / "client/tls.crt").write_bytes(certificate.read_bytes())
    (client / "client/tls.key").write_bytes(key.read_bytes())
    (client / "client/tls.key").chmod(0o600)
    (client / "ca/tls.crt").write_bytes(authority.certificate.read_bytes())
    (tmp_path / "gmsa/apps/port.txt").write_text(str(port))
    provider = RancherProvider({"directory": str(tmp_path / "gmsa")}, 5)
    account = await asyncio.to_thread(provider.host_account, "apps:reader")
    assert (account.user, account.password) == ("reader", SECRET)
    assert told == [("host1", "reader", True)]


async def test_missing_and_forbidden_are_the_same(service: Any, authority: Any) -> None:
    port, told = service
    answers = {
        await ask(port, authority, client, GOOD.replace(b"reader", name))
        for client, name in (
            ("host1", b"other"),
            ("host1", b"nothing"),
            ("host1", b"../accounts/reader"),
            ("host3", b"missing"),
            ("stranger", b"reader"),
        )
    }
    assert len(answers) == 1
    assert answers.pop().startswith(b"HTTP/1.1 404 ")
    assert not any(given for _, _, given in told)
    assert SECRET not in str(told)


async def test_a_client_without_certificate_or_of_another_authority(
    service: Any, authority: Any, other_authority: Any
) -> None:
    port, told = service
    for issuer, client in ((authority, None), (other_authority, "host1")):
        try:
            # TLS 1.3 tells a client of its refusal only when it reads.
            assert await ask(port, issuer, client, GOOD, authority) == b""
        except (ssl.SSLError, ConnectionError):
            continue
    assert told == []


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /provider HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (GOOD.replace(b"reader", b""), 400),
        (GOOD.replace(b"GET", b"POST"), 405),
        (GOOD.replace(b"/provider", b"/"), 404),
        (GOOD.replace(b"\r\n\r\n", b"\r\nobject: other\r\n\r\n"), 400),
        (GOOD.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\nabcde"), 400),
        (GOOD.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"), 400),
        (GOOD.replace(b"\r\n\r\n", b"\r\n folded\r\n\r\n"), 400),
        (b"\r\n\r\n", 400),
        (b"\x00" * 100 + b"\r\n\r\n", 400),
        (b"GET /provider HTTP/1.1\r\nobject: " + b"x" * 10000 + b"\r\n\r\n", 431),
        (b"x" * 10 * 2**20, 431),
    ],
)
async def test_requests_that_are_none(
    service: Any, authority: Any, data: bytes, status: int
) -> None:
    port, _ = service
    try:
        answer = await ask(port, authority, "host1", data)
    except ConnectionError:
        # It stopped reading long before the client stopped writing.
        assert status == 431
        return
    assert answer.startswith(b"HTTP/1.1 %d " % status)


async def test_one_who_says_nothing_is_left(
    settings: dict[str, Any], authority: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account_service, "_SECONDS", 0.2)
    made = AccountService(account_service_settings(settings), lambda *_: None)
    server = await made.start()
    port = server.sockets[0].getsockname()[1]
    assert await ask(port, authority, "host1", b"GET /prov") == b""
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("clients", {}),
        ("clients", None),
        ("clients", {"host1": ["reader"]}),
        ("clients", {"host1": "../x"}),
        ("listen", "localhost"),
        ("listen", "localhost:99999"),
        ("certificate", "relative"),
        ("unknown", "x"),
    ],
)
def test_settings_that_are_wrong(settings: dict[str, Any], key: str, value: Any) -> None:
    with pytest.raises(CredspecError, match="config-"):
        account_service_settings({**settings, key: value})


def test_keys_that_others_may_read_or_that_are_none(settings: dict[str, Any]) -> None:
    for wrong, code in (("key", "host-account-file"), ("client_ca", "account-provider-tls")):
        path = Path(settings["directory"]) / "wrong"
        path.write_text("nothing")
        path.chmod(0o644)
        with pytest.raises(CredspecError, match=code):
            AccountService(account_service_settings({**settings, wrong: str(path)}), print)


@given(st.binary(max_size=300))
def test_any_head_is_a_request_or_none(head: bytes) -> None:
    parsed = account_service._parsed(head + b"\r\n\r\n")
    assert parsed is None or b"\n" not in b"".join(parsed[2].values())
