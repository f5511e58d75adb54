"""Create requests with variables of tickets, and no spec."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.errors import UsageError
from credspec.runtimes.docker_gateway.create_request import CreateBody

VARIABLES = [
    "KRB5CCNAME=FILE:/run/credspec/krb5cc",
    "KRB5CCNAME=/run/credspec/krb5cc",
    "KRB5_CONFIG=/run/credspec/krb5.conf:/etc/krb5.conf",
    "KRB5_KTNAME=FILE:/run/credspec/krb5.keytab",
]


def unpacked(body: dict[str, Any]) -> CreateBody | None:
    return CreateBody.unpack(json.dumps(body).encode())


@pytest.mark.parametrize("runtime", [None, "", "credspec", "runc", "mine"])
@pytest.mark.parametrize("variable", VARIABLES)
def test_they_are_refused_whatever_the_runtime(variable: str, runtime: str | None) -> None:
    body = {"Env": ["A=1", variable], "HostConfig": {"Runtime": runtime, "SecurityOpt": ["a=b"]}}
    for document in (body, {"Env": [variable]}):
        with pytest.raises(UsageError, match=variable.partition("=")[0]) as caught:
            unpacked(document)
        assert caught.value.code == "spec-missing"


@pytest.mark.parametrize(
    ("members", "config"),
    [
        ({}, {"Binds": ["/srv/tickets:/run/credspec:ro"]}),
        ({}, {"Binds": ["volume:/run"]}),
        ({}, {"Mounts": [{"Type": "bind", "Source": "/x", "Target": "/run/credspec/"}]}),
        ({}, {"VolumesFrom": ["other"]}),
        ({"Volumes": {"/run/credspec": {}}}, {}),
        # The image may have the spec, which the tmpfs confirms.
        ({}, {"Tmpfs": {"/run/credspec": ""}}),
        # A runtime of the client's own reads it.
        ({}, {"Runtime": "mine", "Annotations": {"credspec.dev/spec": "file://a.json"}}),
        ({"Env": [*VARIABLES, "CREDSPEC=file://a.json"]}, {}),
    ],
)
def test_where_there_may_be_tickets_the_daemon_has_the_request(
    members: dict[str, Any], config: dict[str, Any]
) -> None:
    assert unpacked({"Env": VARIABLES, **members, "HostConfig": config}) is None


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "Env": st.none() | st.lists(st.sampled_from(["A=1", "KRB5CCNAME=FILE:/x", "B"])),
            "Volumes": st.none() | st.dictionaries(st.text(), st.none()),
        },
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "Runtime": st.sampled_from([None, "", "credspec", "runc"]),
            "Binds": st.none() | st.lists(st.text()),
            "Mounts": st.none() | st.lists(st.dictionaries(st.text(), st.text())),
            "Tmpfs": st.none() | st.dictionaries(st.just("/tmp/x"), st.text()),  # noqa: S108
        },
    ),
)
def test_ordinary_requests_are_the_daemons(body: dict[str, Any], config: dict[str, Any]) -> None:
    assert unpacked({**body, "HostConfig": config}) is None


@pytest.mark.parametrize("wrong", [{"Binds": [5]}, {"Mounts": ["x"]}, {"Tmpfs": 5}, {"Binds": 5}])
def test_what_is_of_another_type_is_the_daemons_to_refuse(wrong: dict[str, Any]) -> None:
    assert unpacked({"Env": VARIABLES, "HostConfig": wrong}) is None
