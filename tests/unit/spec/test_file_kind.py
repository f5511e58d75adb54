"""Files of other tools: told apart by what they hold, and linted as what they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from generated_specs import JSON, SPECS, TEXT
from hypothesis import given
from hypothesis import strategies as st

from credspec.errors import InvalidSpecError
from credspec.spec.carrier_lint import lint_carrier
from credspec.spec.conversions import Form, convert
from credspec.spec.document import CredentialSpec
from credspec.spec.file_kind import FileKind, kind_of, parse_text
from credspec.spec.lint import Severity, lint_document
from credspec.spec.validation import problems_of

GOLDEN = Path(__file__).parent / "golden"
SPEC = json.loads((GOLDEN / "plain.json").read_text())
RAW = "raw://" + json.dumps(SPEC)
CARRIERS = [FileKind.COMPOSE, FileKind.OCI, FileKind.ECS]


def compose(**services: Any) -> dict[str, Any]:
    return {"services": services}


def found(document: dict[str, Any]) -> list[tuple[str, str]]:
    findings = lint_carrier(document, kind_of(document))
    return [(finding.problem.code, finding.problem.where) for finding in findings]


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        (SPEC, FileKind.CREDENTIAL_SPEC),
        ({"DomainJoinConfig": {}, "services": {}}, FileKind.CREDENTIAL_SPEC),
        ([], FileKind.CREDENTIAL_SPEC),
        ({"kind": "GMSACredentialSpec"}, FileKind.KUBERNETES),
        (compose(), FileKind.COMPOSE),
        ({"containerDefinitions": []}, FileKind.ECS),
        ({"credentialSpecs": []}, FileKind.ECS),
        ({"ociVersion": "1.0.2", "annotations": {}}, FileKind.OCI),
    ],
)
def test_kinds(document: Any, kind: FileKind) -> None:
    assert kind_of(document) is kind


@pytest.mark.parametrize(
    "document",
    [
        compose(web={"security_opt": ["credentialspec=file://www.json"]}),
        compose(web={"security_opt": ["CredentialSpec=file://sub\\www.json"]}, db={}),
        compose(web={"security_opt": [f"credentialspec={RAW}"]}),
        compose(web={"security_opt": ["credentialspec=file://${SPEC}"]}),
        {"annotations": {"credspec.dev/spec": "file://www.json"}},
        {"windows": {"credentialSpec": json.dumps(SPEC)}},
        {"windows": {"credentialSpec": SPEC}},
        {"credentialSpecs": ["credentialspec:arn:aws:s3:::bucket/key"]},
        {
            "containerDefinitions": [
                {"credentialSpecs": ["credentialspecdomainless:arn:aws:ssm:r:1:parameter/k"]}
            ]
        },
    ],
)
def test_files_without_a_finding(document: dict[str, Any]) -> None:
    assert found(document) == []


@pytest.mark.parametrize(
    ("document", "code", "where"),
    [
        (
            compose(web={"security_opt": ["x", "credentialspec=www.json"]}),
            *("spec-reference-invalid", "/services/web/security_opt/1"),
        ),
        (
            compose(web={"security_opt": ["credentialspec=file://../x.json"]}),
            *("spec-path-outside", "/services/web/security_opt/0"),
        ),
        (
            compose(web={"security_opt": ["credentialspec=file://C:\\x.json"]}),
            *("spec-path-absolute", "/services/web/security_opt/0"),
        ),
        (
            compose(web={"security_opt": ['credentialspec=raw://{"CmsPlugins": 1}']}),
            *("spec-wrong-type", "/services/web/security_opt/0/CmsPlugins"),
        ),
        (
            compose(web={"credential_spec": {"file": "www.json"}}),
            *("lint-compose-credential-spec", "/services/web/credential_spec"),
        ),
        (compose(web={}), "lint-no-spec", ""),
        ({"windows": {}}, "lint-no-spec", ""),
        ({"containerDefinitions": [{}]}, "lint-no-spec", ""),
        (
            {"annotations": {"credspec.dev/spec": "www.json"}},
            *("spec-reference-invalid", "/annotations/credspec.dev~1spec"),
        ),
        (
            {"windows": {"credentialSpec": "{"}},
            *("spec-not-json", "/windows/credentialSpec"),
        ),
        (
            {"credentialSpecs": ["file://www.json"]},
            *("spec-reference-invalid", "/credentialSpecs/0"),
        ),
    ],
)
def test_findings_about_files_of_other_tools(
    document: dict[str, Any], code: str, where: str
) -> None:
    assert (code, where) in found(document)


@given(
    st.sampled_from(CARRIERS),
    st.dictionaries(
        st.sampled_from(
            ["services", "annotations", "windows", "credentialSpecs", "containerDefinitions"]
        ),
        JSON
        | st.dictionaries(TEXT | st.just("credentialSpec") | st.just("credspec.dev/spec"), JSON)
        | st.dictionaries(TEXT, st.dictionaries(st.just("security_opt"), st.lists(JSON))),
    ),
)
def test_no_file_of_another_tool_makes_lint_raise(kind: FileKind, document: dict[str, Any]) -> None:
    lint_carrier(document, kind)


@given(SPECS, st.sampled_from([Form.COMPOSE, Form.OCI]))
def test_what_convert_writes_has_the_errors_of_the_spec_it_holds(
    document: dict[str, Any], form: Form
) -> None:
    spec = CredentialSpec.from_json(document)
    carrier = parse_text(convert(spec, form, name="web").text)
    errors = [f for f in lint_carrier(carrier, kind_of(carrier)) if f.severity is Severity.ERROR]
    assert errors == []


def test_a_spec_that_is_nested_in_an_object_is_found() -> None:
    document = {"kind": "GMSACredentialSpec", "spec": {"credspec": SPEC}}
    (problem,) = problems_of(document)
    assert (problem.code, problem.where) == ("spec-field-missing", "/credspec")
    assert "/spec/credspec" in problem.found


@pytest.mark.parametrize(
    ("name", "expected"),
    [("contoso-webapp01", []), ("gmsa-WebApp1", ["lint-object-name"]), (7, [])],
)
def test_names_of_objects(name: Any, expected: list[str]) -> None:
    document = {"kind": "GMSACredentialSpec", "metadata": {"name": name}, "credspec": SPEC}
    codes = [finding.problem.code for finding in lint_document(document)]
    assert [code for code in codes if code == "lint-object-name"] == expected


def domainless(given: Any) -> CredentialSpec:
    document = json.loads(json.dumps(SPEC))
    document["ActiveDirectoryConfig"]["HostAccountConfig"] = {
        "PortableCcgVersion": "1",
        "PluginGUID": "{859E1386-BDB4-49E8-85C7-3070B13920E1}",
        "PluginInput": given,
    }
    return CredentialSpec.from_json(document)


ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:reader"


@pytest.mark.parametrize(
    "given",
    [ARN, json.dumps({"credentialArn": ARN}), {"credentialArn": ARN}, {"CredentialArn": ARN}],
)
def test_ecs_gets_the_object_that_it_reads(given: Any) -> None:
    spec = domainless(given)
    made = convert(spec, Form.ECS_DOCUMENT, name="")
    host = json.loads(made.text)["ActiveDirectoryConfig"]["HostAccountConfig"]
    assert host["PluginInput"] == {"CredentialArn": ARN}
    fragment = convert(spec, Form.ECS, name="", location="arn:aws:s3:::b/k")
    assert json.loads(fragment.text) == {
        "credentialSpecs": ["credentialspecdomainless:arn:aws:s3:::b/k"]
    }
    assert bool(fragment.warnings) == (given != {"CredentialArn": ARN})


@pytest.mark.parametrize("given", ["contoso:reader:Passw0rd", {}, {"CredentialArn": 7}, "[]"])
def test_ecs_gets_no_spec_without_an_arn_and_no_input_is_quoted(given: Any) -> None:
    with pytest.raises(InvalidSpecError, match="convert-plugin-input") as caught:
        convert(domainless(given), Form.ECS_DOCUMENT, name="")
    assert "Passw0rd" not in str(caught.value)
