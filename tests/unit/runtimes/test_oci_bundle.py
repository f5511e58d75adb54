from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.runtimes.oci_bundle import add_tickets, host_ids, take_spec
from credspec.runtimes.shim import ShimError

ENVIRONMENT = {"KRB5CCNAME": "FILE:/run/credspec/krb5cc", "KRB5_CONFIG": "/run/credspec/krb5.conf"}


def test_carriers_in_order() -> None:
    config: dict[str, Any] = {
        "annotations": {"credspec.dev/spec": "file://annotation.json"},
        "windows": {"credentialSpec": '{"a": 1}'},
        "process": {"env": ["A=1", "CREDSPEC=file://variable.json", "CREDSPECS=2"]},
    }
    assert take_spec(config) == "file://annotation.json"
    assert config["process"]["env"] == ["A=1", "CREDSPECS=2"]
    del config["annotations"]
    assert take_spec(config) == 'raw://{"a": 1}'
    config = {"process": {"env": ["CREDSPEC=file://variable.json"]}}
    assert take_spec(config) == "file://variable.json"


def test_windows_section_as_an_object() -> None:
    assert take_spec({"windows": {"credentialSpec": {"a": 1}}}) == 'raw://{"a": 1}'


@pytest.mark.parametrize(
    "config",
    [{}, {"process": None}, {"process": {"env": ["CREDSPEC="]}}, {"annotations": {"x": "y"}}],
)
def test_no_carrier(config: dict[str, Any]) -> None:
    assert take_spec(config) is None


def test_a_megabyte_of_spec_is_refused() -> None:
    with pytest.raises(ShimError, match="spec-too-large"):
        take_spec({"annotations": {"credspec.dev/spec": "x" * 2**20}})


def test_ids_through_a_user_namespace() -> None:
    config = {
        "process": {"user": {"uid": 1000, "gid": 5}},
        "linux": {
            "uidMappings": [
                {"containerID": 0, "hostID": 100000, "size": 1000},
                {"containerID": 1000, "hostID": 500000, "size": 10},
            ],
            "gidMappings": [{"containerID": 0, "hostID": 100000, "size": 1000}],
        },
    }
    assert host_ids(config) == (500000, 100005)
    config["process"]["user"]["uid"] = 2000
    with pytest.raises(ShimError, match="container-user-unmapped"):
        host_ids(config)


@given(st.integers(0, 2**32 - 2), st.integers(0, 2**32 - 2))
def test_ids_without_a_user_namespace(uid: int, gid: int) -> None:
    assert host_ids({"process": {"user": {"uid": uid, "gid": gid}}}) == (uid, gid)


def test_tickets_are_added_once_and_the_users_krb5_conf_stays() -> None:
    config: dict[str, Any] = {
        "mounts": [{"destination": "/proc"}, {"destination": "/run/credspec/", "source": "/evil"}],
        "process": {"env": ["KRB5_CONFIG=/mine", "KRB5CCNAME=DIR:/old", "A=1"]},
    }
    add_tickets(config, "/run/credspec/leases/x", ENVIRONMENT)
    once = copy.deepcopy(config)
    add_tickets(config, "/run/credspec/leases/x", ENVIRONMENT)
    assert config == once
    assert [m["destination"] for m in config["mounts"]] == ["/proc", "/run/credspec"]
    assert {"nosuid", "nodev", "noexec"} <= set(config["mounts"][1]["options"])
    assert config["process"]["env"] == [
        "KRB5_CONFIG=/mine",
        "A=1",
        "KRB5CCNAME=FILE:/run/credspec/krb5cc",
    ]
