"""Providers against simulated services: servers of the test that speak the services' interfaces."""

from __future__ import annotations

import builtins
import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from credspec.errors import CredspecError
from credspec.providers.aws import AwsProvider
from credspec.providers.azure_key_vault import AzureKeyVaultProvider
from credspec.providers.rancher import RancherProvider
from credspec.providers.vault import VaultProvider

ACCOUNT = {"username": "reader", "password": "Very-Secret-1!", "domainName": "contoso.com"}
SECRET = ACCOUNT["password"]


def secret_file(path: Path, content: str) -> Path:
    path.write_text(content)
    path.chmod(0o600)
    return path


def no_module(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    real = builtins.__import__

    def fail(name: str, *args: Any) -> Any:
        if name.partition(".")[0] == missing:
            raise ImportError(name)
        return real(name, *args)

    for name in [n for n in sys.modules if n.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", fail)
    monkeypatch.setattr("importlib.import_module", fail)


# Rancher's account provider


@pytest.fixture
def namespace(tmp_path: Path, authority: Any) -> Path:
    made = tmp_path / "gmsa/apps"
    (made / "ssl/client").mkdir(parents=True)
    (made / "ssl/ca").mkdir()
    certificate, key = authority.issue("host1")
    (made / "ssl/client/tls.crt").write_bytes(certificate.read_bytes())
    secret_file(made / "ssl/client/tls.key", key.read_text())
    (made / "ssl/ca/tls.crt").write_bytes(authority.certificate.read_bytes())
    return made


def rancher(namespace: Path) -> RancherProvider:
    return RancherProvider({"directory": str(namespace.parent)}, 5)


def test_ranchers_interface(namespace: Path, serve: Any, authority: Any) -> None:
    service = serve(clients=authority)
    (namespace / "port.txt").write_text(f"{service.port}\n")
    service.answer = lambda *_: (200, {}, json.dumps(ACCOUNT).encode())
    assert rancher(namespace).host_account("apps:reader").password == SECRET
    ((method, path, headers, _),) = service.asked
    assert (method, path, headers["object"]) == ("GET", "/provider", "reader")


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (404, b"", "host-account-not-given"),
        (500, b"Very-Secret-1!", "host-account-answer"),
        (302, b"", "host-account-answer"),
        (200, b"garbage Very-Secret-1!", "host-account-answer"),
        (200, b"x" * 10 * 2**20, "host-account-answer"),
    ],
)
def test_what_ranchers_provider_may_say_wrong(
    namespace: Path, serve: Any, authority: Any, *, status: int, body: bytes, code: str
) -> None:
    service = serve(clients=authority)
    (namespace / "port.txt").write_text(str(service.port))
    service.answer = lambda *_: (status, {"Location": "http://127.0.0.1/"}, body)
    with pytest.raises(CredspecError, match=code) as caught:
        rancher(namespace).host_account("apps:reader")
    assert SECRET not in str(caught.value)


def test_a_server_of_another_authority(namespace: Path, serve: Any, other_authority: Any) -> None:
    service = serve()
    (namespace / "port.txt").write_text(str(service.port))
    (namespace / "ssl/ca/tls.crt").write_bytes(other_authority.certificate.read_bytes())
    with pytest.raises(CredspecError, match="host-account-tls"):
        rancher(namespace).host_account("apps:reader")
    assert service.asked == []


@pytest.mark.parametrize(
    "given", ["apps", "apps:a:b", "../x:y", "apps:a\r\nx: y", ":", "APPS:x", "apps:"]
)
def test_inputs_that_are_not_ranchers(namespace: Path, given: str) -> None:
    with pytest.raises(CredspecError, match="host-account-input"):
        rancher(namespace).host_account(given)


def test_a_rancher_provider_that_is_not_there(namespace: Path) -> None:
    with pytest.raises(CredspecError, match="host-account-file"):
        rancher(namespace).host_account("apps:reader")
    (namespace / "port.txt").write_text("1")
    with pytest.raises(CredspecError, match="host-account-unreachable"):
        rancher(namespace).host_account("apps:reader")
    for port in ("0", "99999", "x", "9" * 100):
        (namespace / "port.txt").write_text(port)
        with pytest.raises(CredspecError, match="host-account-answer"):
            rancher(namespace).host_account("apps:reader")


# Vault


def vault(tmp_path: Path, authority: Any, port: int, **more: Any) -> VaultProvider:
    token = secret_file(tmp_path / "token", "the-token\n")
    settings = {
        "url": f"https://localhost:{port}",
        "ca_file": str(authority.certificate),
        "token_file": str(token),
        **more,
    }
    return VaultProvider(settings, 5)


def test_vaults_interface(tmp_path: Path, serve: Any, authority: Any) -> None:
    service = serve()
    body = json.dumps({"data": {"data": ACCOUNT, "metadata": {}}}).encode()
    service.answer = lambda *_: (200, {"Content-Type": "application/json"}, body)
    found = vault(tmp_path, authority, service.port, prefix="hosts/h1", namespace="team")
    assert found.host_account("hosts/h1/reader").password == SECRET
    ((method, path, headers, _),) = service.asked
    assert (method, path) == ("GET", "/v1/secret/data/hosts/h1/reader")
    assert (headers["x-vault-token"], headers["x-vault-namespace"]) == ("the-token", "team")
    with pytest.raises(CredspecError, match="host-account-not-given"):
        found.host_account("hosts/h2/reader")
    for given in ("../x", "a//b", "a?b", "a/../b", "a b", "/"):
        with pytest.raises(CredspecError, match="host-account-input"):
            found.host_account(given)


def test_vaults_approle_and_the_first_engine(tmp_path: Path, serve: Any, authority: Any) -> None:
    service = serve()

    def answer(method: str, path: str, *_: Any) -> Any:
        login = {"auth": {"client_token": "of-the-role"}}
        return 200, {}, json.dumps(login if "login" in path else {"data": ACCOUNT}).encode()

    service.answer = answer
    secret_id = secret_file(tmp_path / "secret-id", "s-1\n")
    settings = {
        "url": f"https://localhost:{service.port}",
        "ca_file": str(authority.certificate),
        "auth": "approle",
        "role_id": "r-1",
        "secret_id_file": str(secret_id),
        "kv": "1",
        "mount": "kv",
    }
    assert VaultProvider(settings, 5).host_account("reader").user == "reader"
    login, read = service.asked
    assert json.loads(login[3]) == {"role_id": "r-1", "secret_id": "s-1"}
    assert (read[1], read[2]["x-vault-token"]) == ("/v1/kv/reader", "of-the-role")


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (403, b'{"errors": ["denied"]}', "host-account-not-given"),
        (400, b'{"errors": ["invalid role or secret ID"]}', "host-account-not-given"),
        (404, b'{"errors": []}', "host-account-not-given"),
        (503, b"{}", "host-account-unreachable"),
        (200, b"garbage Very-Secret-1!", "host-account-answer"),
        (200, b'{"data": {"data": {"username": "x"}}}', "host-account-answer"),
        (200, b"x" * 10 * 2**20, "host-account-answer"),
        (302, b"", "host-account-answer"),
    ],
)
def test_what_vault_may_say_wrong(
    tmp_path: Path, serve: Any, authority: Any, *, status: int, body: bytes, code: str
) -> None:
    service = serve()
    service.answer = lambda *_: (status, {"Location": "https://127.0.0.1:1/"}, body)
    with pytest.raises(CredspecError, match=code) as caught:
        vault(tmp_path, authority, service.port).host_account("reader")
    assert SECRET not in str(caught.value)


def test_a_vault_of_another_authority(tmp_path: Path, serve: Any, other_authority: Any) -> None:
    service = serve()
    with pytest.raises(CredspecError, match="host-account-tls"):
        vault(tmp_path, other_authority, service.port).host_account("reader")
    assert service.asked == []
    with pytest.raises(CredspecError, match="config-wrong-value"):
        VaultProvider({"url": "http://vault"}, 1)


# AWS


ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/reader-AbCdEf"


@pytest.fixture
def aws_role(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


def aws(authority: Any, port: int, **more: Any) -> AwsProvider:
    url = f"https://localhost:{port}"
    return AwsProvider({"endpoint_url": url, "ca_file": str(authority.certificate), **more}, 5)


@pytest.mark.parametrize(
    "given",
    [
        ARN,
        json.dumps({"CredentialArn": ARN}, separators=(",", ":")),
        json.dumps({"credentialArn": ARN}),
    ],
)
def test_awss_interface(aws_role: None, serve: Any, authority: Any, given: str) -> None:
    service = serve()
    body = json.dumps({"ARN": ARN, "SecretString": json.dumps(ACCOUNT)}).encode()
    service.answer = lambda *_: (200, {"Content-Type": "application/x-amz-json-1.1"}, body)
    assert aws(authority, service.port).host_account(given).password == SECRET
    ((_, _, headers, asked),) = service.asked
    assert headers["x-amz-target"] == "secretsmanager.GetSecretValue"
    assert "eu-west-1" in headers["authorization"]
    assert json.loads(asked) == {"SecretId": ARN}


def test_awss_parameters_and_names(aws_role: None, serve: Any, authority: Any) -> None:
    service = serve()

    def answer(*question: Any) -> Any:
        text = json.dumps(ACCOUNT)
        body = {"Parameter": {"Value": text}, "SecretString": text}
        return 200, {}, json.dumps(body).encode()

    service.answer = answer
    found = aws(authority, service.port, region="eu-west-1", secrets=["prod/*"])
    parameter = "arn:aws:ssm:eu-west-1:123456789012:parameter/prod/reader"
    for given in ("prod/reader", parameter):
        assert found.host_account(given).user == "reader"
    with pytest.raises(CredspecError, match="host-account-not-given"):
        found.host_account("test/reader")
    for given in ("{", '{"x": 1}', "arn:aws:s3:::x", "a b", "[]", '{"CredentialArn": {}}'):
        with pytest.raises(CredspecError, match="host-account-input"):
            found.host_account(given)


def test_awss_refusals(aws_role: None, serve: Any, authority: Any) -> None:
    service = serve()
    body = b'{"__type": "AccessDeniedException", "Message": "no"}'
    service.answer = lambda *_: (400, {}, body)
    with pytest.raises(CredspecError, match=r"AccessDenied.*host-account-not-given"):
        aws(authority, service.port).host_account(ARN)
    service.answer = lambda *_: (200, {}, b"{}")
    with pytest.raises(CredspecError, match="host-account-answer"):
        aws(authority, service.port).host_account(ARN)
    with pytest.raises(CredspecError, match="host-account-unreachable"):
        aws(authority, 1).host_account(ARN)


# Azure


OBJECT = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
def azure(
    serve: Any, authority: Any, monkeypatch: pytest.MonkeyPatch
) -> tuple[AzureKeyVaultProvider, Any, Any, str]:
    metadata, service = serve(plain=True), serve("kv1.vault.lab")
    token = {"access_token": "the-token", "expires_in": "3600", "expires_on": "9999999999"}
    token |= {"resource": "https://vault.lab", "token_type": "Bearer"}
    metadata.answer = lambda *_: (
        200,
        {"Content-Type": "application/json"},
        json.dumps(token).encode(),
    )
    address = f"http://127.0.0.1:{metadata.port}"
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", address)
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if (host, port) == ("kv1.vault.lab", 443):
            return real("127.0.0.1", service.port, *args, **options)
        return real(host, port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    provider = AzureKeyVaultProvider(
        {"hosts": [".vault.lab"], "ca_file": str(authority.certificate)}, 9
    )
    given = f"SecretUri=https://kv1.vault.lab/secrets/reader/v1;objectid={OBJECT}"
    return provider, metadata, service, given


def vault_answer(body: dict[str, Any], status: int = 200) -> Any:
    challenge = 'Bearer authorization="https://login.lab/t", resource="https://vault.lab"'

    def answer(_: str, __: str, headers: dict[str, str], ___: bytes) -> Any:
        if headers.get("authorization") != "Bearer the-token":
            return 401, {"WWW-Authenticate": challenge}, b""
        return status, {"Content-Type": "application/json"}, json.dumps(body).encode()

    return answer


def test_azures_interfaces(azure: Any) -> None:
    provider, metadata, service, given = azure
    service.answer = vault_answer(
        {
            "value": f"CONTOSO\\reader:{SECRET}",
            "id": "https://kv1.vault.lab/secrets/reader/v1",
        },
    )
    account = provider.host_account(given)
    assert (account.domain, account.user, account.password) == ("CONTOSO", "reader", SECRET)
    assert OBJECT in metadata.asked[0][1]
    assert service.asked[-1][1].startswith("/secrets/reader/v1?")


def test_azures_refusals(azure: Any) -> None:
    provider, _, service, given = azure
    for status, code in ((404, "not-given"), (403, "not-given"), (400, "not-given")):
        service.answer = vault_answer({"error": {"code": "x", "message": "y"}}, status)
        with pytest.raises(CredspecError, match=code):
            provider.host_account(given)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("", "host-account-input"),
        (f"ObjectId={OBJECT}", "host-account-input"),
        (f"ObjectId={OBJECT};SecretUri=http://a.vault.azure.net/secrets/x", "host-account-input"),
        ("ObjectId=x;SecretUri=https://abc.vault.azure.net/secrets/x", "host-account-input"),
        (f"ObjectId={OBJECT};SecretUri=https://abc.vault.azure.net/keys/x", "host-account-input"),
        (f"ObjectId={OBJECT};SecretUri=https://evil.test/secrets/x", "host-account-not-given"),
        (
            f"ObjectId={OBJECT};SecretUri=https://abc.vault.azure.net.evil.test/secrets/x",
            "host-account-not-given",
        ),
    ],
)
def test_inputs_that_are_not_azures(given: str, code: str) -> None:
    with pytest.raises(CredspecError, match=code):
        AzureKeyVaultProvider({}, 1).host_account(given)


@pytest.mark.parametrize(
    ("missing", "extra"), [("hvac", "vault"), ("boto3", "aws"), ("azure", "azure")]
)
def test_a_missing_extra_is_named(
    tmp_path: Path, authority: Any, monkeypatch: pytest.MonkeyPatch, missing: str, extra: str
) -> None:
    asks = {
        "hvac": lambda: vault(tmp_path, authority, 1).host_account("reader"),
        "boto3": lambda: aws(authority, 1).host_account(ARN),
        "azure": lambda: AzureKeyVaultProvider({}, 1).host_account(
            f"ObjectId={OBJECT};SecretUri=https://abc.vault.azure.net/secrets/x"
        ),
    }
    no_module(monkeypatch, missing)
    with pytest.raises(CredspecError, match=rf"credspec\[{extra}\].*host-account-extra"):
        asks[missing]()
