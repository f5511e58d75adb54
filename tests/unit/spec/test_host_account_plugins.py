from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from credspec.errors import UsageError
from credspec.spec.host_account_plugins import PLUGINS, host_account_config, plugin_name

AWS = "{859E1386-BDB4-49E8-85C7-3070B13920E1}"


@pytest.mark.parametrize(
    ("text", "guid", "plugin_input"),
    [
        (
            "rancher=cattle-gmsa:reader",
            "{e4781092-f116-4b79-b55e-28eb6a224e26}",
            "cattle-gmsa:reader",
        ),
        (
            "azure-key-vault=ObjectId=1;SecretUri=https://v.example/secrets/x",
            "{CCC2A336-D7F3-4818-A213-272B7924213E}",
            "ObjectId=1;SecretUri=https://v.example/secrets/x",
        ),
        (
            "aws=arn:aws:secretsmanager:eu-west-1:1:secret:x",
            AWS,
            {"CredentialArn": "arn:aws:secretsmanager:eu-west-1:1:secret:x"},
        ),
        (
            "aws-windows=arn:aws:ssm:eu-west-1:1:parameter/x",
            AWS,
            '{"credentialArn": "arn:aws:ssm:eu-west-1:1:parameter/x"}',
        ),
        ("aws-secret-name=prod/ad-credentials", AWS, "prod/ad-credentials"),
        (
            "{GDMA0342-266A-4D1P-831J-20990E82944F}=a=b:c",
            "{GDMA0342-266A-4D1P-831J-20990E82944F}",
            "a=b:c",
        ),
    ],
)
def test_inputs_of_the_known_plugins(text: str, guid: str, plugin_input: object) -> None:
    found = host_account_config(text)
    assert (found.plugin_guid, found.plugin_input) == (guid, plugin_input)
    assert found.portable_ccg_version == "1"


def test_our_own_plugin() -> None:
    found = host_account_config("credspec=keytab:/etc/reader.keytab")
    assert plugin_name(found.plugin_guid or "") == "credspec"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "host-account-plugin"),
        ("rancher", "host-account-plugin"),
        ("nobody=x", "host-account-plugin"),
        ("{a b}=x", "host-account-plugin"),
        ("rancher=one:two:three", "host-account-input"),
        ("rancher=one", "host-account-input"),
        ("azure-key-vault=ObjectId=1", "host-account-input"),
        ("azure-key-vault=ObjectId=1;SecretUri=http://x", "host-account-input"),
        (
            "azure-key-vault=ObjectId=1;SecretUri=https://e.test\\.v.test/secrets/x",
            "host-account-input",
        ),
        (
            "azure-key-vault=ObjectId=1;SecretUri=https://e.test@v.test/secrets/x",
            "host-account-input",
        ),
        ("azure-key-vault=ObjectId=1;SecretUri=https://v.test/keys/x", "host-account-input"),
        ("aws=arn:aws:secretsmanager:evil.test:1:secret:x", "host-account-input"),
        ("rancher=../apps:reader", "host-account-input"),
        ("aws=prod/x", "host-account-input"),
        ("aws-secret-name=", "host-account-input"),
        ("credspec=Keytab", "host-account-input"),
    ],
)
def test_what_is_refused(text: str, code: str) -> None:
    with pytest.raises(UsageError, match=code):
        host_account_config(text)


def test_a_secret_is_never_quoted() -> None:
    with pytest.raises(UsageError) as caught:
        host_account_config("rancher=contoso:reader:Passw0rd!")
    assert "Passw0rd" not in str(caught.value)


@given(st.text())
@example("cattle-gmsa:reader")
@example("ObjectId=1;SecretUri=https://v.example/secrets/x")
@example("arn:aws:secretsmanager:eu-west-1:1:secret:x")
@example("keytab:x")
def test_any_text_is_read_or_refused(text: str) -> None:
    for name in PLUGINS:
        with contextlib.suppress(UsageError):
            assert host_account_config(f"{name}={text}").plugin_input


def test_names_of_plugins_in_any_letter_case() -> None:
    assert plugin_name(AWS.lower()) == plugin_name(AWS.strip("{}")) == "AWS secret"
    assert plugin_name("{0}") is None
