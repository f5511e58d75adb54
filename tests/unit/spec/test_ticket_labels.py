from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import yaml

from credspec.contract.ticket_options import kind_of_tickets
from credspec.errors import UsageError
from credspec.kubernetes.objects import examples
from credspec.spec.carrier_lint import lint_carrier
from credspec.spec.conversions import Form, convert, read_any_form
from credspec.spec.document import CredentialSpec
from credspec.spec.file_kind import FileKind
from credspec.spec.ticket_labels import FORMS, ticket_labels, with_labels

SPEC = CredentialSpec.from_bytes((Path(__file__).parent / "samples/powershell_7.json").read_bytes())
SERVICES = ("HTTP/www.a.test", "MSSQLSvc/sql.a.test:1433")
LABELS = {
    "credspec.dev/tickets": "services",
    "credspec.dev/services": "HTTP/www.a.test,MSSQLSvc/sql.a.test:1433",
}


def converted(form: Form, reference: str | None = None) -> str:
    text = convert(SPEC, form, name="web", reference=reference).text
    return with_labels(text, form, ticket_labels(SERVICES))


def test_labels_are_those_that_containers_take() -> None:
    assert ticket_labels(SERVICES) == LABELS
    kind, services = kind_of_tickets(*LABELS.values(), keytab=False)
    assert (kind, services) == ("services", SERVICES)
    assert ticket_labels(()) == {}
    with pytest.raises(UsageError, match="service-name-invalid"):
        ticket_labels(["krbtgt/A.TEST"])


@pytest.mark.parametrize("form", FORMS)
def test_a_spec_is_read_from_what_carries_the_labels(form: Form) -> None:
    assert CredentialSpec.from_json(read_any_form(converted(form).encode())) == SPEC
    without = convert(SPEC, form, name="web").text
    assert with_labels(without, form, {}) == without


def test_each_form_has_them_where_its_reader_looks() -> None:
    words = shlex.split(converted(Form.DOCKER_RUN, "file://www.json"))
    assert words[2:] == [
        *("--label", "credspec.dev/tickets=services"),
        *("--label", f"credspec.dev/services={LABELS['credspec.dev/services']}"),
    ]
    compose = yaml.safe_load(converted(Form.COMPOSE, "file://www.json"))
    assert compose["services"]["web"]["labels"] == LABELS
    annotations = json.loads(converted(Form.OCI, "file://www.json"))["annotations"]
    assert annotations == {"credspec.dev/spec": "file://www.json", **LABELS}


def test_lint_has_nothing_against_them() -> None:
    for form, kind in ((Form.COMPOSE, FileKind.COMPOSE), (Form.OCI, FileKind.OCI)):
        document = yaml.safe_load(converted(form, "file://www.json"))
        assert lint_carrier(document, kind) == ()


@pytest.mark.parametrize(
    ("labels", "codes"),
    [
        ({"credspec.dev/tickets": "services"}, ["tickets-options"]),
        (["credspec.dev/tickets=all"], ["option-invalid"]),
        ({"credspec.dev/services": "HTTP/a"}, ["tickets-options"]),
        (LABELS | {"credspec.dev/keytab": "true"}, ["tickets-options"]),
        (LABELS | {"credspec.dev/services": "HTTP/a,krbtgt/A"}, ["option-invalid"]),
        (
            LABELS | {"credspec.dev/services": "cifs/a,HTTP/a,ldap/dc1"},
            ["lint-service-of-machine"] * 2,
        ),
        (LABELS | {"credspec.dev/services": "${SERVICES}"}, []),
        ({"other": "x"}, []),
    ],
)
def test_lint_finds_what_would_not_start(labels: object, codes: list[str]) -> None:
    service = {"security_opt": ["credentialspec=file://www.json"], "labels": labels}
    found = lint_carrier({"services": {"web": service}}, FileKind.COMPOSE)
    assert [finding.problem.code for finding in found] == codes
    assert all(f.problem.where.startswith("/services/web/labels/") for f in found)


def test_an_example_pod_has_them_as_annotations_or_attributes() -> None:
    pod = examples.pod("web", "default", "default", options=LABELS)
    assert pod["metadata"]["annotations"] == {"credspec.dev/gmsa": "web", **LABELS}
    pod = examples.pod("web", "default", "default", with_webhook=False, options=LABELS)
    assert pod["spec"]["volumes"][0]["csi"]["volumeAttributes"] == {
        "credentialSpecName": "web",
        "tickets": "services",
        "services": LABELS["credspec.dev/services"],
    }
