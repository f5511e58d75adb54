"""Every field of a request is bounded, in the code as in the schema."""

from __future__ import annotations

import json
import time
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.agent.audit import Caller
from credspec.agent.doors.http.lease_fields import (
    MAX_BODY_BYTES,
    MAX_CONTAINER,
    MAX_ID,
    MAX_PATH_BYTES,
    lease_request,
    parse_body,
)
from credspec.agent.doors.http.openapi import openapi_document
from credspec.agent.leases.request import requested_spec
from credspec.errors import NotPermittedError, UsageError

BODY: dict[str, Any] = {
    "spec": "file://one.json",
    "container": "c",
    "runtime_state": "/run/runc/c",
    "uid": 0,
    "gid": 0,
}
SCHEMA = jsonschema_rs.validator_for(openapi_document()["components"]["schemas"]["LeaseRequest"])


def refused(body: object) -> str:
    with pytest.raises(UsageError) as caught:
        lease_request("0" * 32, body, Caller(0, 1))
    assert len(str(caught.value)) < 400
    return caught.value.code


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("container", "x" * (MAX_CONTAINER + 1), "request-too-long"),
        ("container", "a\nb", "request-wrong-value"),
        ("container", "a\x7f", "request-wrong-value"),
        ("container", "\ud800", "request-wrong-value"),
        ("container", ["x"] * 1000, "request-wrong-type"),
        ("runtime_state", "/" + "a" * 256, "request-too-long"),
        ("runtime_state", "/" + "é" * 128, "request-too-long"),
        ("runtime_state", "/a" * (MAX_PATH_BYTES // 2), "request-too-long"),
        ("runtime_state", "/a\0b", "request-wrong-value"),
        ("runtime_state", "/\udcff", "request-wrong-value"),
        ("runtime_state", "a/b", "request-wrong-value"),
        ("runtime_state", "", "request-wrong-value"),
        ("spec", "file://" + "a/" * 2048, "request-too-long"),
        ("spec", "raw://" + " " * 65537, "request-too-long"),
        ("spec", {"PluginInput": "secret"}, "request-wrong-type"),
        ("uid", 10**4000, "request-wrong-type"),
        ("uid", MAX_ID + 1, "request-wrong-type"),
        ("gid", -1, "request-wrong-type"),
        ("gid", 1.0, "request-wrong-type"),
        ("gid", True, "request-wrong-type"),
        ("mode", 10**4000, "request-wrong-value"),
        ("mode", 0o777, "request-wrong-value"),
        ("mode", 0o066, "request-wrong-value"),
        ("keytab", 1, "request-wrong-type"),
        ("tickets", "all", "request-wrong-value"),
        ("tickets", ["tgt"], "request-wrong-value"),
        ("tickets", "services", "tickets-options"),
        ("services", ["HTTP/a"], "tickets-options"),
        ("services", "HTTP/a", "request-wrong-type"),
        ("services", [1], "request-wrong-type"),
        ("services", ["krbtgt/A.TEST"], "request-wrong-value"),
        ("services", ["HTTP/a\0"], "request-wrong-value"),
        ("services", ["x" * 100_000], "request-wrong-value"),
        ("spec_source", "grpc", "request-wrong-value"),
        ("spec_source", ["kubernetes"], "request-wrong-value"),
        ("spec_source", "x" * 1000, "request-wrong-value"),
        # The host's own file comes from the host.
        ("spec_source", "kubernetes", "request-wrong-value"),
    ],
)
def test_values_out_of_bounds(field: str, value: object, code: str) -> None:
    assert refused(BODY | {field: value}) == code


@pytest.mark.parametrize("spec", ["raw://{}", "raw://not a spec"])
def test_only_root_says_where_a_document_comes_from(spec: str) -> None:
    body = BODY | {"spec": spec, "spec_source": "kubernetes"}
    assert lease_request("0" * 32, body, Caller(0, 1)).spec_source == "kubernetes"
    with pytest.raises(NotPermittedError, match="spec-source-not-permitted"):
        lease_request("0" * 32, body, Caller(4711, 1))
    del body["spec_source"]
    assert lease_request("0" * 32, body, Caller(4711, 1)).spec_source == "raw"


def test_a_spec_in_the_wrong_type_is_not_quoted() -> None:
    with pytest.raises(UsageError) as caught:
        lease_request("0" * 32, BODY | {"spec": {"PluginInput": "secret"}}, Caller(0, 1))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("container", "x" * MAX_CONTAINER),
        ("container", ""),
        ("container", "naïve 容器"),
        ("runtime_state", "/" + "a" * 255),
        ("runtime_state", "/a" * (MAX_PATH_BYTES // 2 - 1) + "/"),
        ("spec", "RAW://" + " " * 65536),
        ("uid", MAX_ID),
    ],
)
def test_values_at_the_bounds(field: str, value: object) -> None:
    request = lease_request("0" * 32, BODY | {field: value}, Caller(0, 1))
    found = getattr(request, field)
    assert found == (requested_spec(str(value)) if field == "spec" else value)


@given(
    st.dictionaries(
        st.sampled_from([*BODY, "mode", "keytab", "more"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.text(max_size=300)
        | st.from_regex(r"\A/[a-z]{0,300}\Z")
        | st.lists(st.none(), max_size=2),
    )
)
def test_what_is_taken_is_what_the_schema_allows(changes: dict[str, Any]) -> None:
    body = BODY | changes
    try:
        lease_request("0" * 32, body, Caller(0, 1))
    except UsageError:
        return
    # What a reference may be is for others to say.
    assert SCHEMA.is_valid(body | {"spec": BODY["spec"]})


@given(st.binary(max_size=200))
def test_no_bytes_make_it_raise_another_error(body: bytes) -> None:
    try:
        parse_body(body)
    except UsageError as error:
        assert error.code in {"request-not-json", "request-too-long"}


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b"{" + b'"a":{' * 5000,
        b"[" * MAX_BODY_BYTES,
        b"1" * MAX_BODY_BYTES,
        b"\xff\xfe{\x00}\x00",
        b"\xef\xbb\xbf{}",
        b'"\xff"',
        "{}".encode("utf-16"),
        "{}".encode("utf-32"),
    ],
)
def test_bodies_that_other_readers_would_take(body: bytes) -> None:
    with pytest.raises(UsageError, match=r"request-not-json|request-too-long"):
        parse_body(body)


def test_a_document_with_every_character_escaped_is_taken() -> None:
    spec = "raw://" + json.dumps({"PluginInput": 'a\\b"c' * 3000})
    assert parse_body(json.dumps(BODY | {"spec": spec}, indent=4).encode()) == BODY | {"spec": spec}


@pytest.mark.parametrize(
    "body",
    [
        b"[" * MAX_BODY_BYTES,
        b"[" + b"[]," * (MAX_BODY_BYTES // 3 - 1) + b"0]",
        b'{"a":' + b"1" * (MAX_BODY_BYTES - 10) + b"}",
        b'{"a":0.' + b"1" * (MAX_BODY_BYTES - 10) + b"}",
        b"[" + b",".join([b"1" * 4000] * 64) + b"]",
        json.dumps({f"k{n}": n for n in range(15_000)}).encode(),
        b'"' + b"\\ud83d\\ude00" * (MAX_BODY_BYTES // 12 - 1) + b'"',
        b'"' * MAX_BODY_BYTES,
        b'"\\' * (MAX_BODY_BYTES // 2),
        b'"' + b'\\"' * (MAX_BODY_BYTES // 2 - 1) + b'"',
        b'["' + b"\\\\" * 1000 + b'", ' + b"[]," * (MAX_BODY_BYTES // 4) + b"0]",
    ],
)
def test_no_body_takes_long(body: bytes) -> None:
    assert len(body) <= MAX_BODY_BYTES
    before = time.thread_time()
    try:
        found = parse_body(body)
        lease_request("0" * 32, found, Caller(0, 1))
    except UsageError:
        pass
    assert time.thread_time() - before < 0.1
