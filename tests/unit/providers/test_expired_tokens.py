"""Tokens of providers past their expiry, over simulated services that take each token once only.

A provider that kept a token from one question to the next would be refused at the second.
"""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from credspec.providers.aws import AwsProvider
from credspec.providers.azure_key_vault import AzureKeyVaultProvider
from credspec.providers.vault import VaultProvider

ACCOUNT = {"username": "reader", "password": "Very-Secret-1!", "domainName": "contoso.com"}
JSON = {"Content-Type": "application/json"}
OBJECT = "11111111-2222-3333-4444-555555555555"


class Tokens:
    """Tokens that are good for one question each."""

    def __init__(self) -> None:
        self.issued = 0
        self.good: set[str] = set()

    def issue(self) -> str:
        self.issued += 1
        self.good = {f"token-{self.issued}"}
        return f"token-{self.issued}"

    def take(self, token: str) -> bool:
        if token not in self.good:
            return False
        self.good.clear()
        return True


def vault(tmp_path: Path, authority: Any, port: int, **more: str) -> VaultProvider:
    settings = {"url": f"https://localhost:{port}", "ca_file": str(authority.certificate)}
    return VaultProvider(settings | more, 60)


def private(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def test_vaults_token_is_read_again_for_each_question(
    tmp_path: Path, serve: Any, authority: Any
) -> None:
    service, tokens = serve(), Tokens()
    body = json.dumps({"data": {"data": ACCOUNT, "metadata": {}}}).encode()
    service.answer = lambda _m, _p, headers, _b: (
        (200, JSON, body) if tokens.take(headers["x-vault-token"]) else (403, JSON, b"{}")
    )
    file = tmp_path / "token"
    provider = vault(tmp_path, authority, service.port, token_file=private(file, "x"))
    for _ in range(3):
        private(file, tokens.issue())
        assert provider.host_account("reader").user == "reader"


def test_vaults_role_logs_on_for_each_question(tmp_path: Path, serve: Any, authority: Any) -> None:
    service, tokens = serve(), Tokens()

    def answer(_: str, path: str, headers: dict[str, str], __: bytes) -> Any:
        if "login" in path:
            login = {"client_token": tokens.issue(), "lease_duration": 1, "renewable": False}
            return 200, JSON, json.dumps({"auth": login}).encode()
        body = json.dumps({"data": {"data": ACCOUNT, "metadata": {}}}).encode()
        is_good = tokens.take(headers["x-vault-token"])
        return (200, JSON, body) if is_good else (403, JSON, b"{}")

    service.answer = answer
    secret = private(tmp_path / "secret", "s-1")
    more = {"auth": "approle", "role_id": "r-1", "secret_id_file": secret}
    provider = vault(tmp_path, authority, service.port, **more)
    for _ in range(3):
        assert provider.host_account("reader").user == "reader"
    assert tokens.issued == 3


def test_azures_token_is_got_again_for_each_question(
    serve: Any, authority: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata, service, tokens = serve(plain=True), serve("kv1.vault.lab"), Tokens()
    challenge = 'Bearer authorization="https://login.lab/t", resource="https://vault.lab"'

    def give(*_: Any) -> Any:
        token = {"access_token": tokens.issue(), "expires_in": "3600", "expires_on": "9999999999"}
        token |= {"resource": "https://vault.lab", "token_type": "Bearer"}
        return 200, JSON, json.dumps(token).encode()

    def answer(_: str, __: str, headers: dict[str, str], ___: bytes) -> Any:
        given = headers.get("authorization", "").removeprefix("Bearer ")
        if not tokens.take(given):
            return 401, {"WWW-Authenticate": challenge}, b""
        secret = {"value": "CONTOSO\\reader:x", "id": "https://kv1.vault.lab/secrets/reader/v1"}
        return 200, JSON, json.dumps(secret).encode()

    metadata.answer, service.answer = give, answer
    address = f"http://127.0.0.1:{metadata.port}"
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", address)
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if (host, port) == ("kv1.vault.lab", 443):
            return real("127.0.0.1", service.port, *args, **options)
        return real(host, port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    settings = {"hosts": [".vault.lab"], "ca_file": str(authority.certificate)}
    provider = AzureKeyVaultProvider(settings, 9)
    given = f"SecretUri=https://kv1.vault.lab/secrets/reader/v1;objectid={OBJECT}"
    for _ in range(3):
        assert provider.host_account(given).user == "reader"
    assert tokens.issued == 3


def test_awss_role_is_asked_again_for_each_question(
    serve: Any, authority: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    metadata, service, tokens = serve(plain=True), serve(), Tokens()

    def give(*_: Any) -> Any:
        soon = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        keys = {"AccessKeyId": "AKIAEXAMPLE", "SecretAccessKey": "x", "Expiration": soon}
        return 200, JSON, json.dumps(keys | {"Token": tokens.issue()}).encode()

    def answer(_: str, __: str, headers: dict[str, str], ___: bytes) -> Any:
        if not tokens.take(headers.get("x-amz-security-token", "")):
            return 400, JSON, b'{"__type": "ExpiredTokenException"}'
        return 200, JSON, json.dumps({"SecretString": json.dumps(ACCOUNT)}).encode()

    metadata.answer, service.answer = give, answer
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    address = f"http://127.0.0.1:{metadata.port}/role"
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", address)
    settings = {
        "endpoint_url": f"https://localhost:{service.port}",
        "ca_file": str(authority.certificate),
        "region": "eu-west-1",
        "secrets": ["prod/*"],
    }
    provider = AwsProvider(settings, 60)
    for _ in range(3):
        assert provider.host_account("prod/reader").user == "reader"
    assert tokens.issued == 3
