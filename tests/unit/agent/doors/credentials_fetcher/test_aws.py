"""What is fetched from AWS, from a local server that speaks the APIs of S3 and Secrets Manager."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from credspec.agent.doors.credentials_fetcher import aws
from credspec.agent.doors.credentials_fetcher.call_status import RETRIABLE, status_of
from credspec.agent.doors.credentials_fetcher.requests import (
    AwsAccess,
    Refusal,
    RefusedCallError,
    spec_locations,
)
from support.servers.aws_endpoints import ACCESS_KEY, SESSION_TOKEN, AwsEndpoints

SECRET = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:reader-AbCdEf"
ACCESS = AwsAccess("eu-west-1", ACCESS_KEY, "secret-key", SESSION_TOKEN)
[LOCATION] = spec_locations(["arn:aws:s3:::specs/www/one.json#0a/web"])


def document(plugin_input: Any = None) -> dict[str, Any]:
    return {
        "CmsPlugins": ["ActiveDirectory"],
        "DomainJoinConfig": {"DnsName": "contoso.com", "MachineAccountName": "WebApp01"},
        "ActiveDirectoryConfig": {
            "GroupManagedServiceAccounts": [{"Name": "WebApp01", "Scope": "contoso.com"}],
            "HostAccountConfig": {
                "PortableCcgVersion": "1",
                "PluginGUID": "{859E1386-BDB4-49E8-85C7-3070B13920E1}",
                "PluginInput": {"CredentialArn": SECRET} if plugin_input is None else plugin_input,
            },
        },
    }


@pytest.fixture
def endpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsEndpoints]:
    found = AwsEndpoints()
    monkeypatch.setenv("AWS_ENDPOINT_URL", found.url)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    found.objects["specs/www/one.json"] = json.dumps(document()).encode()
    found.secrets[SECRET] = json.dumps(
        {"username": "alice", "password": "correct horse", "domainName": "Contoso.com"}
    )
    yield found
    found.close()


def test_a_spec_and_its_user(endpoints: AwsEndpoints) -> None:
    ticket = aws.fetch_spec(ACCESS, LOCATION)
    assert (ticket.name, ticket.domain, ticket.spec_arn) == (
        "web",
        "contoso.com",
        "arn:aws:s3:::specs/www/one.json",
    )
    user, arn = aws.fetch_user(ACCESS, ticket)
    assert (str(user), user.password, arn) == ("alice@contoso.com", "correct horse", SECRET)


@pytest.mark.parametrize(
    "given", [json.dumps({"credentialArn": SECRET}), SECRET, {"CredentialArn": SECRET}]
)
def test_every_form_of_the_plug_ins_input(endpoints: AwsEndpoints, given: Any) -> None:
    endpoints.objects["specs/www/one.json"] = json.dumps(document(given)).encode()
    assert aws.fetch_user(ACCESS, aws.fetch_spec(ACCESS, LOCATION))[1] == SECRET


@pytest.mark.parametrize(
    "given",
    [
        {},
        "prod/reader",
        "{",
        {"CredentialArn": 1},
        {"CredentialArn": "arn:aws:ssm:eu-west-1:1:parameter/x"},
        {"CredentialArn": f"{SECRET}\n"},
        "contoso.com:alice:hunter2",
    ],
)
def test_input_that_names_no_secret_is_not_quoted(endpoints: AwsEndpoints, given: Any) -> None:
    endpoints.objects["specs/www/one.json"] = json.dumps(document(given)).encode()
    ticket = aws.fetch_spec(ACCESS, LOCATION)
    with pytest.raises(RefusedCallError, match=r"^ERROR: invalid credentialspec fields") as caught:
        aws.fetch_user(ACCESS, ticket)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "refusal", "code"),
    [
        (None, Refusal.SPEC_NOT_FETCHED, "NoSuchKey"),
        (b"", Refusal.SPEC_FIELDS, "spec-"),
        (b"\xff\xff\xff", Refusal.SPEC_FIELDS, "spec-"),
        (b"x" * (10 << 20), Refusal.SPEC_FIELDS, "spec-too-large"),
    ],
    ids=["none", "empty", "no text", "10 MiB"],
)
def test_specs_that_are_none(
    endpoints: AwsEndpoints, data: bytes | None, refusal: Refusal, code: str
) -> None:
    endpoints.objects.clear()
    if data is not None:
        endpoints.objects["specs/www/one.json"] = data
    with pytest.raises(RefusedCallError, match=code) as caught:
        aws.fetch_spec(ACCESS, LOCATION)
    assert caught.value.refusal is refusal


@pytest.mark.parametrize(
    ("secret", "refusal"),
    [
        (None, Refusal.SECRET_NOT_FETCHED),
        ("", Refusal.SECRET_NOT_FETCHED),
        ("hunter2", Refusal.SECRET_NOT_FETCHED),
        ('["hunter2"]', Refusal.SECRET_NOT_FETCHED),
        ('{"username": "alice", "password": 7}', Refusal.SECRET_NOT_FETCHED),
        ('{"username": "alice"}', Refusal.CREDENTIALS),
        ('{"username": "", "password": "hunter2"}', Refusal.CREDENTIALS),
        ('{"username": "a:b", "password": "hunter2"}', Refusal.DOMAIN_OR_USER),
        ('{"username": "a", "password": "hunter2", "domainName": "x"}', Refusal.DOMAIN_OR_USER),
        ('{"username": "a", "password": "hunter2", "domainName": ""}', Refusal.DOMAIN_OR_USER),
        ('{"username": "a", "password": "hunter2"}', Refusal.DOMAIN_OR_USER),
        ("[" * 100_000, Refusal.SECRET_NOT_FETCHED),
    ],
)
def test_secrets_that_are_none(
    endpoints: AwsEndpoints, secret: str | None, refusal: Refusal
) -> None:
    ticket = aws.fetch_spec(ACCESS, LOCATION)
    endpoints.secrets.clear()
    if secret is not None:
        endpoints.secrets[SECRET] = secret
    with pytest.raises(RefusedCallError) as caught:
        aws.fetch_user(ACCESS, ticket)
    assert caught.value.refusal is refusal
    assert "hunter2" not in str(caught.value)


def test_older_names_in_a_secret(endpoints: AwsEndpoints) -> None:
    names = {"usernameOfStandardUserAccount": "bob", "passwordOfStandardUserAccount": "p"}
    names["domainName"] = "contoso.com"
    endpoints.secrets[SECRET] = json.dumps(names)
    user, _ = aws.fetch_user(ACCESS, aws.fetch_spec(ACCESS, LOCATION))
    assert str(user) == "bob@contoso.com"


def test_a_secret_amid_a_rotation_of_users(endpoints: AwsEndpoints) -> None:
    secret = {"username": "alice:bob", "password": "p", "domainName": "contoso.com"}
    endpoints.secrets[SECRET] = json.dumps(secret)
    assert str(aws.fetch_secret(ACCESS, SECRET)) == "bob@contoso.com"
    endpoints.secrets[SECRET] = json.dumps(secret | {"username": "alice:"})
    with pytest.raises(RefusedCallError, match="no user after the colon"):
        aws.fetch_secret(ACCESS, SECRET)


def test_keys_that_aws_refuses(endpoints: AwsEndpoints) -> None:
    with pytest.raises(RefusedCallError, match=r"InvalidAccessKeyId.*aws-refused") as caught:
        aws.fetch_spec(replace(ACCESS, access_key_id="AKIAOTHER"), LOCATION)
    assert "secret-key" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "code", "is_transient"),
    [
        (503, "SlowDown", True),
        (500, "InternalError", True),
        (429, "Whatever", True),
        (400, "RequestTimeout", True),
        (403, "RequestTimeTooSkewed", True),
        (403, "AccessDenied", False),
        (400, "ExpiredToken", False),
        (404, "NoSuchBucket", False),
    ],
)
def test_trouble_of_aws_is_told_from_its_refusal(
    endpoints: AwsEndpoints, status: int, code: str, is_transient: bool
) -> None:
    endpoints.trouble = (status, code)
    with pytest.raises(RefusedCallError, match=code) as caught:
        aws.fetch_spec(ACCESS, LOCATION)
    assert (status_of(caught.value.error) in RETRIABLE) == is_transient


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch, endpoints: AwsEndpoints) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(RefusedCallError, match="aws-unreachable"):
        aws.fetch_spec(ACCESS, LOCATION)


def test_what_many_clients_leave_is_collected_a_few_at_a_time(
    monkeypatch: pytest.MonkeyPatch, endpoints: AwsEndpoints
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    from botocore.client import BaseClient

    def clients() -> int:
        # Not by isinstance(): weak references call themselves what they refer to.
        return sum(issubclass(type(each), BaseClient) for each in gc.get_objects())

    gc.collect()
    before = clients()
    gc.disable()
    try:
        for _ in range(30):
            with pytest.raises(RefusedCallError):
                aws.fetch_spec(ACCESS, LOCATION)
        left = clients()
    finally:
        gc.enable()
    assert left <= before + 2


def test_a_collection_looks_at_little_of_what_stays(endpoints: AwsEndpoints) -> None:
    program = (
        "import gc; from credspec.agent.doors.credentials_fetcher import aws; "
        "from credspec.agent.doors.credentials_fetcher.requests import AwsAccess, spec_locations; "
        "[where] = spec_locations(['arn:aws:s3:::specs/www/one.json#0a/web']); "
        f"access = AwsAccess('eu-west-1', {ACCESS_KEY!r}, 'secret-key', {SESSION_TOKEN!r}); "
        "aws.fetch_spec(access, where); "
        "gc.collect(); print(len(gc.get_objects()))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], env=os.environ, capture_output=True, text=True, check=True
    )
    assert int(shown.stdout) < 10_000
