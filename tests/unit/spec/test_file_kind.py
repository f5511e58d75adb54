"""Files of other tools: told apart by what they hold, and linted as what they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.errors import InvalidSpecError
from credspec.spec.carrier_lint import lint_carrier
from credspec.spec.conversions import Form, convert, read_any_form
from credspec.spec.document import CredentialSpec
from credspec.spec.file_kind import FileKind, kind_of, parse_text
from credspec.spec.lint import Severity, lint_document
from credspec.spec.validation import problems_of
from support.specs.generated_specs import JSON, SPECS, TEXT

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
        ({"ociVersion": "1.0.2", "process": {}}, FileKind.OCI),
        ({"taskDefinition": {"containerDefinitions": []}}, FileKind.ECS),
        ({"ContainerDefinitions": []}, FileKind.ECS),
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
            "taskDefinition": {
                "containerDefinitions": [{"credentialSpecs": ["credentialspec:arn:x"]}]
            }
        },
        {"containerDefinitions": [{"dockerSecurityOptions": ["credentialspec:file://www.json"]}]},
        compose(web={"annotations": {"credspec.dev/spec": "file://www.json"}}),
        compose(web={"environment": ["A=b", "CREDSPEC=file://www.json"]}),
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
        (
            compose(web={"security_opt": ["credentialspec:file://www.json"]}),
            *("spec-reference-invalid", "/services/web/security_opt/0"),
        ),
        (
            compose(web={"annotations": ["credspec.dev/spec=file:///x.json"]}),
            *("spec-path-absolute", "/services/web/annotations/0"),
        ),
        (
            compose(web={"environment": {"CREDSPEC": "registry://x"}}),
            *("spec-reference-registry", "/services/web/environment/CREDSPEC"),
        ),
        (
            {"taskDefinition": {"ContainerDefinitions": [{"CredentialSpecs": ["x"]}]}},
            *(
                "spec-reference-invalid",
                "/taskDefinition/ContainerDefinitions/0/CredentialSpecs/0",
            ),
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
    ("document", "what", "nested"),
    [
        (
            {"apiVersion": "v1", "kind": "List", "items": [{"credspec": SPEC}]},
            "'List'",
            "/items/0/",
        ),
        (
            {"apiVersion": "v1", "kind": "ConfigMap", "data": {"www.json": json.dumps(SPEC)}},
            *("'ConfigMap'", "/data/www.json"),
        ),
        ({"apiVersion": "v1", "kind": "Pod", "spec": {}}, "'Pod'", ""),
        ({"HostConfig": {"SecurityOpt": ["credentialspec=x"]}}, "without any", ""),
        ({"credspec": SPEC}, "without any", "/credspec"),
        (compose(web={}), "a Compose file", ""),
        ({"ociVersion": "1.0.2"}, "an OCI config.json", ""),
    ],
)
def test_another_file_is_named_by_its_kind_by_every_reader(
    document: dict[str, Any], what: str, nested: str
) -> None:
    (problem,) = problems_of(document)
    assert (problem.code, problem.where) == ("spec-other-kind", "")
    assert what in problem.found
    assert nested in problem.remedy
    assert [finding.problem for finding in lint_document(document)] == [problem]
    with pytest.raises(InvalidSpecError, match="spec-other-kind"):
        CredentialSpec.from_text(json.dumps(document))


@pytest.mark.parametrize("document", [{}, {"domainjoinconfig": {}}, {"CmsPlugin": [], "kind": "x"}])
def test_what_may_be_a_spec_has_the_problems_of_one(document: dict[str, Any]) -> None:
    assert "spec-other-kind" not in {problem.code for problem in problems_of(document)}


COMPOSE_WITH_ANCHORS = f"""
x-web: &web
  restart: always
  image: &image app
x-spec: &options
  security_opt: ['credentialspec={RAW}']
services:
  web:
    <<: [*web, *options]
    image: other
    ports: !override ["80:80"]
  db: {{image: *image}}
"""


def test_compose_files_have_anchors_merge_keys_and_tags() -> None:
    document = parse_text(COMPOSE_WITH_ANCHORS)
    assert kind_of(document) is FileKind.COMPOSE
    assert document["services"]["web"]["image"] == "other"
    assert document["services"]["web"]["restart"] == "always"
    assert document["services"]["db"] == {"image": "app"}
    assert found(document) == []
    spec = CredentialSpec.from_json(read_any_form(COMPOSE_WITH_ANCHORS.encode()))
    assert spec == CredentialSpec.from_json(SPEC)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x]\nb: *a\n",  # no Compose file
        "services: {a: *nothing}\n",
        "services: &a {b: *a}\n",
        "services:\n  a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
        + "".join(
            f"  {chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 10)}]\n"
            for i in range(9)
        ),
        "services:\n  a0: &a0 "
        + "[" * 60
        + "]" * 60
        + "\n"
        + "".join(
            f"  a{i}: &a{i} " + "[" * 60 + f"*a{i - 1}" + "]" * 60 + "\n" for i in range(1, 40)
        ),
    ],
)
def test_aliases_that_are_endless_or_too_large_are_refused(text: str) -> None:
    with pytest.raises(InvalidSpecError):
        parse_text(text)


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
