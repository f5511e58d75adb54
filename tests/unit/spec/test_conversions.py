"""The other forms of a credential spec: what each takes, and that nothing is lost on the way."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from credspec.errors import InvalidSpecError, UsageError
from credspec.spec.conversions import ANNOTATION, Form, convert, read_any_form
from credspec.spec.document import CredentialSpec
from support.specs.generated_specs import SPECS

LOSSLESS = [Form.JSON, Form.RAW, Form.DOCKER_RUN, Form.COMPOSE, Form.OCI]
RAW = 'raw://{"CmsPlugins":["ActiveDirectory"],"DomainJoinConfig":{"DnsName":"a.b"}}'
READ = {"CmsPlugins": ["ActiveDirectory"], "DomainJoinConfig": {"DnsName": "a.b"}}


@settings(max_examples=100)
@given(SPECS, st.sampled_from(LOSSLESS))
def test_every_valid_spec_comes_back_from_every_form(document: Any, form: Form) -> None:
    spec = CredentialSpec.from_json(document)
    text = convert(spec, form, name="web").text
    assert CredentialSpec.from_json(read_any_form(text.encode())) == spec


@settings(max_examples=50)
@given(SPECS)
def test_kubernetes_keeps_all_that_it_knows(document: Any) -> None:
    spec = CredentialSpec.from_json(document)
    made = convert(spec, Form.KUBERNETES, name="web")
    back = CredentialSpec.from_json(read_any_form(made.text.encode()))
    again = convert(back, Form.KUBERNETES, name="web")
    assert again.text == made.text
    assert not again.warnings
    assert (back.accounts, back.default_account) == (spec.accounts, spec.default_account)
    # What another reader of YAML makes of it.
    assert yaml.safe_load(made.text)["credspec"] == back.to_json()


@settings(max_examples=50)
@given(SPECS)
def test_another_reader_of_compose_files_finds_the_option(document: Any) -> None:
    spec = CredentialSpec.from_json(document)
    read = yaml.safe_load(convert(spec, Form.COMPOSE, name="web").text)
    (option,) = read["services"]["web"]["security_opt"]
    text = option.replace("$$", "$").removeprefix("credentialspec=raw://")
    assert CredentialSpec.from_text(text) == spec


@settings(max_examples=50)
@given(SPECS)
def test_a_shell_finds_one_word(document: Any) -> None:
    spec = CredentialSpec.from_json(document)
    option, word = shlex.split(convert(spec, Form.DOCKER_RUN, name="").text)
    assert option == "--security-opt"
    assert CredentialSpec.from_text(word.removeprefix("credentialspec=raw://")) == spec


def compose(*options: Any, name: Any = "web") -> bytes:
    return json.dumps({"services": {name: {"security_opt": list(options)}}}).encode()


@pytest.mark.parametrize(
    "data",
    [
        RAW.encode(),
        RAW.replace("raw", "RAW", 1).encode(),
        f"--security-opt 'credentialspec={RAW}'\n".encode(),
        f"--security-opt='credentialspec={RAW}'".encode(),
        compose("no-new-privileges", f"credentialspec={RAW}"),
        compose(f"credentialspec={RAW}", 7, None),
        json.dumps({"annotations": {ANNOTATION: RAW}}).encode(),
        json.dumps({"windows": {"credentialSpec": READ}}).encode(),
        json.dumps({"windows": {"credentialSpec": json.dumps(READ)}}).encode(),
        b"# made by hand\n\nCmsPlugins: [ActiveDirectory]\nDomainJoinConfig: {DnsName: a.b}\n",
    ],
)
def test_every_carrier_is_read(data: bytes) -> None:
    assert read_any_form(data) == READ


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"--security-opt 'credentialspec=", "convert-no-spec"),
        (b"--security-opt no-new-privileges", "convert-no-spec"),
        (b"--security-opt credentialspec=file://www.json", "convert-reference"),
        (b'{"ociVersion": "1.0.2", "windows": {}}', "convert-no-spec"),
        (b'{"ociVersion": "1.0.2", "annotations": 1, "windows": []}', "convert-no-spec"),
        (b'{"services": [1]}', "convert-services"),
        (b'{"services": {"web": 1}}', "convert-services"),
        (b'{"services": {"web": {"security_opt": "credentialspec=raw://{}"}}}', "convert-services"),
        (b'{"services": {"web": {"security_opt": {"a": 1}}}}', "convert-services"),
        (compose("credentialspec=file://www.json"), "convert-reference"),
        (compose("credentialspec=file://$SPEC"), "convert-variable"),
        (compose("credentialspec=raw://${SPEC}"), "convert-variable"),
        (compose("credentialspec=x"), "spec-reference-invalid"),
        (b'{"credentialSpecs": ["credentialspec:arn:aws:s3:::b/k"]}', "convert-reference"),
        (b"%YAML 99999999999999999999999.1\n---\na: 1\n", "spec-not-yaml"),
        (b'a: "\\UFFFFFFFF"\n', "spec-not-yaml"),
        (b"a: \x07\n", "spec-not-yaml"),
        (b"a: 1\n---\nb: 2\n", "spec-yaml-feature"),
        (b"a: &x 1\nb: *x\n", "spec-yaml-feature"),
        (b"<<: {a: 1}\n", "spec-yaml-feature"),
        (b"? [a]\n: 1\n", "spec-yaml-feature"),
        (b"a: 1\na: 2\n", "spec-duplicate-key"),
        (b"? {" * 200, "spec-yaml-feature"),
        (b"- " * 30_000, "spec-too-deep"),
        (b"# nothing\n", "spec-empty"),
    ],
)
def test_what_holds_no_spec_says_so(data: bytes, code: str) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        read_any_form(data)
    assert caught.value.code == code


@pytest.mark.parametrize("name", ["", "a b", "日本", "a\nb", "x" * 129])
def test_names_of_services(name: str) -> None:
    with pytest.raises(UsageError, match="convert-service-name"):
        convert(CredentialSpec.from_json(MINIMAL), Form.COMPOSE, name=name)


@pytest.mark.parametrize("form", [Form.COMPOSE, Form.DOCKER_RUN, Form.OCI])
@pytest.mark.parametrize(
    ("reference", "code"),
    [
        ("file://../x.json", "spec-path-outside"),
        ("file://..\\x.json", "spec-path-outside"),
        ("file://C:\\x.json", "spec-path-absolute"),
        ("file:///etc/credspec/specs/x.json", "spec-path-absolute"),
        ("www.json", "spec-reference-invalid"),
    ],
)
def test_no_reference_is_written_that_no_host_takes(form: Form, reference: str, code: str) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        convert(CredentialSpec.from_json(MINIMAL), form, name="web", reference=reference)
    assert caught.value.code == code


MINIMAL = {
    "CmsPlugins": ["ActiveDirectory"],
    "DomainJoinConfig": {"DnsName": "contoso.com", "MachineAccountName": "WebApp01"},
    "ActiveDirectoryConfig": {
        "GroupManagedServiceAccounts": [{"Name": "WebApp01", "Scope": "contoso.com"}]
    },
}
