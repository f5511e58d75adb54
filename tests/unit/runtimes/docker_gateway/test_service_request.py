from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.errors import UsageError
from credspec.runtimes.docker_gateway.service_request import check_service, is_service_target


def service(spec: object, placement: object = None) -> bytes:
    task: dict[str, Any] = {"ContainerSpec": {"Image": "a", "Privileges": {"CredentialSpec": spec}}}
    if placement is not None:
        task["Placement"] = placement
    return json.dumps({"Name": "web", "TaskTemplate": task}).encode()


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("POST", "/services/create", True),
        ("POST", "/v1.41/services/create", True),
        ("POST", "/v1.51/services/web/update?version=12", True),
        ("POST", "http://docker/v1.41/services/create", True),
        ("GET", "/services/create", False),
        ("GET", "/v1.41/services", False),
        ("POST", "/v1.41/containers/create", False),
        ("DELETE", "/v1.41/services/web", False),
    ],
)
def test_targets(method: str, target: str, expected: bool) -> None:
    assert is_service_target(method, target) is expected


@pytest.mark.parametrize(
    "spec", [{"File": "www.json"}, {"Config": "x"}, {"Registry": "x", "File": ""}]
)
def test_a_service_with_a_spec_is_refused(spec: object) -> None:
    for placement in (None, {"Platforms": [{"OS": "linux"}]}, {"Constraints": []}):
        with pytest.raises(UsageError, match="docker-service-spec") as caught:
            check_service(service(spec, placement))
        assert "CREDSPEC=file://" in str(caught.value)
    # As Go reads JSON.
    with pytest.raises(UsageError, match="docker-service-spec"):
        check_service(service(spec).lower())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"TaskTemplate": 7}',
        service(None),
        service({}),
        service({"File": "", "Config": ""}),
        service({"File": "x"}, {"Constraints": ["node.platform.os==windows"]}),
        service({"File": "x"}, {"Platforms": [{"Architecture": "amd64", "OS": "windows"}]}),
    ],
)
def test_other_services_pass(body: bytes) -> None:
    check_service(body)


@given(st.recursive(st.none() | st.text() | st.integers(), st.lists))
def test_no_spec_of_another_type_is_an_internal_error(spec: object) -> None:
    check_service(service(spec))
