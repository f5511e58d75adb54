from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.runtimes.oci_bundle import Wish, add_tickets, take_wish
from credspec.runtimes.shim import ShimError

ENVIRONMENT = {"KRB5CCNAME": "FILE:/run/credspec/krb5cc", "KRB5_CONFIG": "/run/credspec/krb5.conf"}


CONSENT = {"type": "tmpfs", "destination": "/run/credspec"}


def wish(config: dict[str, Any]) -> Wish:
    found = take_wish(config)
    assert found is not None
    return found


def test_each_carrier() -> None:
    assert wish({"annotations": {"credspec.dev/spec": "file://a.json"}}).spec == "file://a.json"
    assert wish({"windows": {"credentialSpec": '{"a": 1}'}}).spec == 'raw://{"a": 1}'
    assert wish({"windows": {"credentialSpec": {"a": 1}}}).spec == 'raw://{"a": 1}'
    config = {"process": {"env": ["CREDSPEC=file://a.json"]}, "mounts": [CONSENT]}
    assert wish(config).spec == "file://a.json"


def test_our_variables_are_taken_out_whoever_carries_the_spec() -> None:
    config: dict[str, Any] = {
        "annotations": {"credspec.dev/spec": "file://a.json"},
        "process": {
            "env": ["A=1", "CREDSPEC=file://a.json", "CREDSPECS=2", "CREDSPEC_KEYTAB=true"]
        },
    }
    found = wish(config)
    assert config["process"]["env"] == ["A=1", "CREDSPECS=2"]
    # Options come with the carrier of the spec: what an image sets does not count.
    assert not found.keytab


@pytest.mark.parametrize(
    "config",
    [
        {
            "annotations": {"credspec.dev/spec": "file://a.json"},
            "process": {"env": ["CREDSPEC=file://b.json"]},
        },
        {
            "annotations": {"credspec.dev/spec": "file://a.json"},
            "windows": {"credentialSpec": '{"a": 1}'},
        },
    ],
)
def test_carriers_that_disagree_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ShimError, match="spec-carriers-disagree"):
        take_wish(config)


@pytest.mark.parametrize(
    "name", ["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"]
)
def test_the_sandbox_of_a_pod_has_no_use_for_tickets(name: str) -> None:
    annotations = {"credspec.dev/spec": "file://a.json", name: "sandbox"}
    assert take_wish({"annotations": annotations}) is None
    assert wish({"annotations": {**annotations, name: "container"}}).spec == "file://a.json"


def test_podman_takes_annotations_from_images_so_they_are_confirmed() -> None:
    annotations = {"credspec.dev/spec": "file://a.json", "io.container.manager": "libpod"}
    with pytest.raises(ShimError, match="spec-carrier-unconfirmed"):
        take_wish({"annotations": annotations})
    assert wish({"annotations": annotations, "mounts": [CONSENT]}).spec == "file://a.json"
    del annotations["io.container.manager"]
    podmans = {"source": "/x", "destination": "/run/.containerenv"}
    with pytest.raises(ShimError, match="spec-carrier-unconfirmed"):
        take_wish({"annotations": annotations, "mounts": [podmans]})


def test_an_images_variable_alone_chooses_no_identity() -> None:
    with pytest.raises(ShimError, match="spec-carrier-unconfirmed"):
        take_wish({"process": {"env": ["CREDSPEC=file://a.json"]}})
    volume = CONSENT | {"type": "bind"}
    with pytest.raises(ShimError, match="spec-carrier-unconfirmed"):
        take_wish({"process": {"env": ["CREDSPEC=file://a.json"]}, "mounts": [volume]})


@pytest.mark.parametrize(
    "config",
    [{}, {"process": None}, {"process": {"env": ["CREDSPEC="]}}, {"annotations": {"x": "y"}}],
)
def test_no_carrier(config: dict[str, Any]) -> None:
    assert take_wish(config) is None


def test_a_megabyte_of_spec_is_refused() -> None:
    with pytest.raises(ShimError, match="spec-too-large"):
        take_wish({"annotations": {"credspec.dev/spec": "x" * 2**20}})


def optioned(carrier: str, **options: str) -> dict[str, Any]:
    """Return a configuration that carries a spec and options the one way or the other."""
    user = {"user": {"uid": 5, "gid": 6}}
    if carrier == "annotation":
        named = {f"credspec.dev/{name}": value for name, value in options.items()}
        return {"annotations": {"credspec.dev/spec": "file://a.json"} | named, "process": user}
    named = {f"CREDSPEC_{name.upper()}": value for name, value in options.items()}
    env = [f"{name}={value}" for name, value in ({"CREDSPEC": "file://a.json"} | named).items()]
    return {"process": user | {"env": env}, "mounts": [CONSENT]}


@pytest.mark.parametrize("carrier", ["annotation", "variable"])
def test_options(carrier: str) -> None:
    plain = wish(optioned(carrier))
    assert (plain.uid, plain.gid, plain.mode, plain.keytab) == (5, 6, 0o600, False)
    assert plain.directory_mode == 0o700
    found = wish(optioned(carrier, owner="1000:1001", mode="0640", keytab="true"))
    assert (found.uid, found.gid, found.mode, found.keytab) == (1000, 1001, 0o640, True)
    assert found.directory_mode == 0o750
    assert wish(optioned(carrier, owner="1000")).gid == 6
    assert wish(optioned(carrier, mode="444")).directory_mode == 0o755
    assert not wish(optioned(carrier, keytab="false")).keytab
    empty = wish(optioned(carrier, owner="", mode="", keytab=""))
    assert (empty.uid, empty.gid, empty.mode, empty.keytab) == (5, 6, 0o600, False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("owner", value) for value in ("app", "1:2:3", "-1", "1:", ":1", "\u0661", "4294967295")),
        *(("mode", value) for value in ("rw", "0755", "0040", "4600", "60", "00600", "0o600")),
        *(("keytab", value) for value in ("yes", "\x1b[31m", "x" * 2**20)),
    ],
)
@pytest.mark.parametrize("carrier", ["annotation", "variable"])
def test_options_that_are_none(carrier: str, name: str, value: str) -> None:
    with pytest.raises(ShimError, match="option-invalid") as caught:
        take_wish(optioned(carrier, **{name: value}))
    assert f"credspec.dev/{name}" in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_ids_through_a_user_namespace() -> None:
    config = {
        "annotations": {"credspec.dev/spec": "file://a.json"},
        "process": {"user": {"uid": 1000, "gid": 5}},
        "linux": {
            "uidMappings": [
                {"containerID": 0, "hostID": 100000, "size": 1000},
                {"containerID": 1000, "hostID": 500000, "size": 10},
            ],
            "gidMappings": [{"containerID": 0, "hostID": 100000, "size": 1000}],
        },
    }
    assert (wish(config).uid, wish(config).gid) == (500000, 100005)
    config["annotations"]["credspec.dev/owner"] = "1:2"
    assert (wish(config).uid, wish(config).gid) == (100001, 100002)
    config["annotations"]["credspec.dev/owner"] = "2000"
    with pytest.raises(ShimError, match="container-user-unmapped"):
        take_wish(config)


def test_ids_through_the_runtimes_own_user_namespace_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rootless engine is in a namespace itself, where root is the user."""
    own = [(0, 1000, 1), (1, 200000, 65536)]
    monkeypatch.setattr("credspec.runtimes.oci_bundle.own_id_ranges", lambda _: own)
    config: dict[str, Any] = {
        "annotations": {"credspec.dev/spec": "file://a.json"},
        "process": {"user": {"uid": 0, "gid": 5}},
    }
    found = take_wish(config, is_users=True)
    assert found is not None
    assert (found.uid, found.gid) == (1000, 200004)
    # An agent in the same namespace counts as this process does.
    assert (wish(config).uid, wish(config).gid) == (0, 5)
    config["process"]["user"]["uid"] = 70000
    with pytest.raises(ShimError, match="container-user-unmapped"):
        take_wish(config, is_users=True)


@given(st.integers(0, 2**32 - 2), st.integers(0, 2**32 - 2))
def test_ids_without_a_user_namespace(uid: int, gid: int) -> None:
    config = {
        "annotations": {"credspec.dev/spec": "file://a.json"},
        "process": {"user": {"uid": uid, "gid": gid}},
    }
    assert (wish(config).uid, wish(config).gid) == (uid, gid)


@given(
    st.dictionaries(
        st.sampled_from(["annotations", "windows", "process", "linux", "mounts"]),
        st.recursive(
            st.none() | st.text(max_size=20) | st.integers(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["env", "credspec.dev/spec", "credspec.dev/mode", "user"]),
                    inner,
                    max_size=3,
                )
            ),
            max_leaves=8,
        ),
    )
)
def test_a_configuration_of_any_shape_is_refused_in_words(config: dict[str, Any]) -> None:
    with contextlib.suppress(ShimError):
        take_wish(config)


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
