"""Services with a credential spec: what dockerd gets, and what its clients see of it afterwards."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.contract.names import NEEDS_RUNTIME
from credspec.contract.ticket_options import OPTIONS
from credspec.errors import CredspecError, InvalidSpecError, UsageError
from credspec.gateway.inspect_answer import Kind, as_requested, parse_inspect_target
from credspec.gateway.service_request import ServiceBody, ServiceTarget, parse_service_target

FILE = {"File": "www.json"}
API = (1, 51)
DOCUMENT = {
    "CmsPlugins": ["ActiveDirectory"],
    "DomainJoinConfig": {
        "Sid": "S-1-5-21-1-2-3",
        "MachineAccountName": "WebApp01",
        "Guid": "244818ae-87ac-4fcd-92ec-e79e5252348a",
        "DnsTreeName": "contoso.com",
        "DnsName": "contoso.com",
        "NetBiosName": "CONTOSO",
    },
    "ActiveDirectoryConfig": {
        "GroupManagedServiceAccounts": [{"Name": "WebApp01", "Scope": "contoso.com"}]
    },
}
ANYTHING = st.recursive(
    st.none() | st.text() | st.integers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def service(spec: object, placement: object = None, **container: object) -> dict[str, Any]:
    task: dict[str, Any] = {
        "ContainerSpec": {"Image": "a", "Privileges": {"CredentialSpec": spec}, **container}
    }
    if placement is not None:
        task["Placement"] = placement
    return {"Name": "web", "Labels": {}, "TaskTemplate": task}


def unpacked(body: object) -> ServiceBody | None:
    return ServiceBody.unpack(json.dumps(body).encode())


def packed(body: object, config: bytes | None = None, image: tuple[str, ...] = ()) -> Any:
    found = unpacked(body)
    assert found is not None
    return json.loads(found.pack(found.reference(config), API, image))


def seen(body: object, kind: Kind = "service") -> Any:
    """Return what a client sees of a service that dockerd has like this."""
    answer = {"ID": "x", "Spec": body, "PreviousSpec": None}
    text = json.dumps([answer] if kind == "services" else answer).encode()
    changed = as_requested(text, kind, "credspec", [])
    found = json.loads(text if changed is None else changed)
    return (found[0] if kind == "services" else found)["Spec"]


def container(body: Any) -> Any:
    return body["TaskTemplate"]["ContainerSpec"]


def targets(body: Any) -> list[str]:
    return [mount["Target"] for mount in container(body)["Mounts"]]


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("POST", "/services/create", ServiceTarget(None)),
        ("POST", "/v1.41/services/create", ServiceTarget((1, 41))),
        ("POST", "/v1.51/services/web/update?version=12", ServiceTarget((1, 51))),
        ("POST", "http://docker/v1.41/services/create", ServiceTarget((1, 41))),
        ("GET", "/services/create", None),
        ("GET", "/v1.41/services", None),
        ("POST", "/v1.41/containers/create", None),
        ("DELETE", "/v1.41/services/web", None),
    ],
)
def test_targets(method: str, target: str, expected: ServiceTarget | None) -> None:
    assert parse_service_target(method, target) == expected


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("/v1.41/services", "services"),
        ("/services?filters=x", "services"),
        ("/v1.41/services/web?insertDefaults=true", "service"),
        ("/v1.41/services/web/logs", None),
        ("/v1.41/tasks", None),
    ],
)
def test_questions(target: str, kind: str | None) -> None:
    found = parse_inspect_target("GET", target)
    assert (found.kind if found else None) == kind


def test_a_file_becomes_what_the_shim_takes_and_no_other_runtime() -> None:
    sent = packed(service(FILE, Env=["A=b"]))
    assert container(sent)["Env"] == [
        "A=b",
        "KRB5CCNAME=/run/credspec/krb5cc",
        "KRB5_CONFIG=/run/credspec/krb5.conf",
        "CREDSPEC=file://www.json",
        # Without a value, so that an image's does not count.
        *(f"{variable}=" for _, variable in OPTIONS),
    ]
    assert container(sent)["Mounts"] == [{"Type": "tmpfs", "Target": "/run/credspec"}]
    assert container(sent)["Sysctls"] == {NEEDS_RUNTIME: "1"}
    assert container(sent)["Privileges"]["CredentialSpec"] is None


def test_variables_of_user_and_image_stay() -> None:
    body = service(FILE, Env=["KRB5_CONFIG=/mine"])
    sent = packed(body, image=("KRB5CCNAME=/image",))
    assert "KRB5_CONFIG=/mine" in container(sent)["Env"]
    assert not any(entry.startswith("KRB5CCNAME") for entry in container(sent)["Env"])
    assert seen(sent) == body


def test_a_config_is_sent_as_it_is_now() -> None:
    data = base64.b64encode(json.dumps(DOCUMENT).encode()).decode()
    answer = json.dumps({"Spec": {"Data": data}}).encode()
    of_runtime = {"ConfigID": "abc1", "ConfigName": "www", "Runtime": {}}
    other = {"ConfigID": "abc2", "ConfigName": "c", "File": {"Name": "/c"}}
    body = service({"Config": "abc1"}, Configs=[of_runtime, other])
    found = unpacked(body)
    assert found is not None
    assert found.config == "abc1"
    sent = packed(body, answer)
    (variable,) = [e for e in container(sent)["Env"] if e.startswith("CREDSPEC=")]
    assert json.loads(variable.removeprefix("CREDSPEC=raw://")) == DOCUMENT
    # dockerd takes such a config only together with the spec.
    assert container(sent)["Configs"] == [other]
    again = seen(sent)
    assert {c["ConfigID"] for c in container(again)["Configs"]} == {"abc1", "abc2"}
    assert container(again)["Privileges"]["CredentialSpec"] == {"Config": "abc1"}


def test_options_are_labels_of_the_container() -> None:
    labels = {"credspec.dev/owner": "1000:1000", "credspec.dev/keytab": "true", "x": "y"}
    body = service(FILE, Labels=labels, Mounts=[{"Type": "tmpfs", "Target": "/other"}])
    sent = packed(body)
    assert targets(sent) == [
        "/other",
        "/run/credspec",
        "/run/credspec/owner=1000:1000",
        "/run/credspec/keytab=true",
    ]
    assert "CREDSPEC_OWNER=1000:1000" in container(sent)["Env"]
    assert "KRB5_KTNAME=/run/credspec/krb5.keytab" in container(sent)["Env"]
    assert seen(sent) == body


@given(
    environment=st.lists(st.from_regex(r"[A-Z]{1,4}=[a-z]{0,3}", fullmatch=True), max_size=4),
    mounts=st.lists(st.sampled_from(["/a", "/run", "/run/credspecs"]), max_size=3),
    sysctls=st.dictionaries(st.sampled_from(["net.a", "net.b"]), st.just("1")),
    labels=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    kind=st.sampled_from(["service", "services"]),
)
def test_clients_see_what_they_asked_for_and_an_update_with_it_changes_nothing(
    environment: list[str],
    mounts: list[str],
    sysctls: dict[str, str],
    labels: dict[str, str],
    kind: Kind,
) -> None:
    given_parts = {
        "Env": environment,
        "Mounts": [{"Type": "tmpfs", "Target": target} for target in mounts],
        "Sysctls": sysctls,
    }
    body = service(FILE, **{name: part for name, part in given_parts.items() if part})
    body["Labels"] = labels
    sent = packed(body)
    assert seen(sent, kind) == body
    assert packed(seen(sent)) == sent
    # Also by a client that saw what dockerd has: the spec that it adds replaces the former.
    container(sent)["Privileges"]["CredentialSpec"] = {"File": "other.json"}
    changed = packed(sent)
    assert targets(changed).count("/run/credspec") == 1
    assert [e for e in container(changed)["Env"] if e.startswith("CREDSPEC=")] == [
        "CREDSPEC=file://other.json"
    ]


def test_the_specification_before_the_last_update_is_shown_as_it_was_asked_for_too() -> None:
    sent = packed(service(FILE))
    answer = json.dumps({"Spec": service(None), "PreviousSpec": sent}).encode()
    changed = as_requested(answer, "service", "credspec", [])
    assert changed is not None
    assert json.loads(changed)["PreviousSpec"] == service(FILE)


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"TaskTemplate": 7},
        service(None),
        service({}),
        service({"File": "", "Config": ""}),
        service({"File": "x"}, {"Constraints": ["node.platform.os==windows"]}),
        service({"File": "x"}, {"Platforms": [{"Architecture": "amd64", "OS": "windows"}]}),
        service({"File": "x"}, Env=7),
        service({"File": "x"}, Mounts={}),
    ],
)
def test_other_services_pass(body: object) -> None:
    assert unpacked(body) is None


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (service({"Registry": "x"}), "spec-reference-registry"),
        (service({"File": "x", "Config": "y"}), "spec-reference-invalid"),
        (service({"Other": "x"}), "spec-reference-invalid"),
        (service({"File": ["x"]}), "spec-reference-invalid"),
        (service({"Config": "../secrets"}), "spec-config-missing"),
        (service(FILE, Env=["CREDSPEC=file://b.json"]), "docker-service-carrier"),
        (service(FILE, Env=["CREDSPEC_MODE="]), "docker-service-carrier"),
        (
            service(FILE, Mounts=[{"Type": "tmpfs", "Target": "/run/credspec/"}]),
            "docker-service-carrier",
        ),
        (service(FILE, Labels={"credspec.dev/mode": "x"}), "option-invalid"),
        (service(FILE, Labels={"credspec.dev/modus": "0600"}), "docker-misspelt-name"),
    ],
)
def test_what_is_refused(body: object, code: str) -> None:
    with pytest.raises(CredspecError) as caught:
        packed(body)
    assert caught.value.code == code


@pytest.mark.parametrize("answer", [None, b"[]", b'{"Spec": {"Data": "!"}}'])
def test_a_config_that_is_not_there_is_refused(answer: bytes | None) -> None:
    with pytest.raises(InvalidSpecError, match="spec-config-missing"):
        packed(service({"Config": "abc"}), answer)


def test_a_config_that_is_no_spec_is_refused() -> None:
    data = base64.b64encode(b"{}").decode()
    with pytest.raises(InvalidSpecError, match="spec-field-missing"):
        packed(service({"Config": "abc"}), json.dumps({"Spec": {"Data": data}}).encode())


def test_an_api_that_would_drop_the_sysctl_is_refused() -> None:
    found = unpacked(service(FILE))
    assert found is not None
    with pytest.raises(UsageError, match="docker-service-version"):
        found.pack(found.reference(None), (1, 39))


def test_empty_members_are_none() -> None:
    found = unpacked(service({"Config": "", "File": "www.json", "Registry": ""}))
    assert found is not None
    assert found.spec == {"file": "www.json"}


def test_go_reads_names_in_any_case() -> None:
    found = ServiceBody.unpack(json.dumps(service(FILE)).lower().encode())
    assert found is not None
    assert str(found.reference(None)) == "file://www.json"


@given(ANYTHING, ANYTHING, ANYTHING)
def test_no_service_of_another_type_is_an_internal_error(
    spec: object, part: object, note: object
) -> None:
    body = service(spec, Env=part, Mounts=part, Configs=part, Sysctls=part, Labels=part)
    body["Labels"] = {"credspec.dev/service": note if isinstance(note, str) else json.dumps(note)}
    try:
        found = unpacked(body)
        if found is not None:
            found.pack(found.reference(None), API)
    except CredspecError:
        pass
    as_requested(json.dumps({"Spec": body}).encode(), "service", "credspec", [])
