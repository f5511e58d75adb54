"""The provider of Secrets before a simulated API server, as in a pod of the agent."""

from __future__ import annotations

import base64
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from credspec.errors import CredspecError
from credspec.providers.kubernetes import KubernetesProvider

ACCOUNT = {"username": "reader", "password": "Very-Secret-1!", "domainName": "contoso.com"}


def secret_of(account: dict[str, str]) -> bytes:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in account.items()}
    return json.dumps({"kind": "Secret", "metadata": {}, "data": data}).encode()


@pytest.fixture
def files(tmp_path: Path, authority: Any) -> Path:
    """Mounted as the kubelet does: what one opens is a link to what it replaces at once."""
    made = tmp_path / "..2026"
    made.mkdir()
    for name, content in (
        ("token", "the-token"),
        ("namespace", "credspec"),
        ("ca.crt", authority.certificate.read_text()),
    ):
        (made / name).write_text(content)
        (made / name).chmod(0o600)
    (tmp_path / "..data").symlink_to(made.name)
    for name in ("token", "namespace", "ca.crt"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    return tmp_path


def provider(files: Path, **more: Any) -> KubernetesProvider:
    own = {"ca_file": str(files / "ca.crt"), "token_file": str(files / "token")}
    return KubernetesProvider({"secrets": ["reader"], **own, **more}, 5)


@pytest.mark.parametrize("given", ["reader", "credspec:reader"])
def test_simulated_a_secret_of_the_own_namespace(
    files: Path, serve: Any, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    service = serve()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "localhost")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(service.port))
    monkeypatch.delenv("KUBERNETES_SERVICE_PORT_HTTPS", raising=False)
    service.answer = lambda *_: (200, {}, secret_of({**ACCOUNT, "more": "x"}))
    found = provider(files).host_account(given)
    assert (found.domain, found.user, found.password) == (
        "contoso.com",
        "reader",
        "Very-Secret-1!",
    )
    ((method, path, headers, _),) = service.asked
    assert (method, path) == ("GET", "/api/v1/namespaces/credspec/secrets/reader")
    assert headers["authorization"] == "Bearer the-token"


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (404, b"", "host-account-not-given"),
        (403, b"Very-Secret-1!", "host-account-not-given"),
        (401, b"", "host-account-not-given"),
        (500, b"Very-Secret-1!", "host-account-answer"),
        (302, b"", "host-account-answer"),
        (200, b"garbage Very-Secret-1!", "host-account-answer"),
        (200, b"[]", "host-account-answer"),
        (200, b'{"data": {"password": "not base64", "username": 7}}', "host-account-answer"),
        (200, secret_of({"password": "Very-Secret-1!"}), "host-account-answer"),
        (200, b"x" * 10 * 2**20, "host-account-answer"),
    ],
)
def test_simulated_what_it_may_be_answered(
    files: Path, serve: Any, *, status: int, body: bytes, code: str
) -> None:
    service = serve()
    service.answer = lambda *_: (status, {"Location": "http://127.0.0.1/"}, body)
    with pytest.raises(CredspecError, match=code) as caught:
        provider(files, url=f"https://localhost:{service.port}").host_account("reader")
    for secret in ("Very-Secret-1!", "the-token"):
        assert secret not in str(caught.value)


@pytest.mark.parametrize("given", ["", ":reader", "a:b:reader", "../reader", "READER", "reader\n"])
def test_inputs_that_are_no_secrets(files: Path, given: str) -> None:
    with pytest.raises(CredspecError, match="host-account-input"):
        provider(files, url="https://localhost:1").host_account(given)


@pytest.mark.parametrize("given", ["admin", "kube-system:reader", "credspec:admin"])
def test_a_spec_may_name_no_other_secret(files: Path, given: str) -> None:
    with pytest.raises(CredspecError, match="host-account-not-given"):
        provider(files, url="https://localhost:1").host_account(given)


def test_a_token_that_others_may_read_is_refused(files: Path) -> None:
    (files / "token").resolve().chmod(0o644)
    with pytest.raises(CredspecError, match="host-account-file"):
        provider(files, url="https://localhost:1").host_account("reader")


@pytest.mark.parametrize("host", ["", "evil.example/x", "a b", "[::1"])
def test_outside_of_a_cluster(files: Path, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")

    def no_name(*_: Any, **__: Any) -> Any:
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    with pytest.raises(CredspecError, match="host-account-not-given"):
        provider(files).host_account("reader")
