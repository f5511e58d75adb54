from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.contract.errors import ShimError
from credspec.contract.ticket_options import ANNOTATIONS, VARIABLES, TicketRequest
from credspec.shim.carriers import BUILD, DOCKER, OTHER, PODMAN, Origin, take_ticket_request
from credspec.shim.runtime import Invocation
from support.engines.podman_storage import CONTAINER, write_storage
from support.specs.spellings import spellings

CONSENT = {"type": "tmpfs", "destination": "/run/credspec"}
DOCKERS = Origin(DOCKER)


def requested(config: dict[str, Any], origin: Origin | None = None) -> TicketRequest:
    found = take_ticket_request(config, origin)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("line", "engine"),
    [
        ("--root /var/run/docker/runtime-runc/moby create --bundle /b/c1 c1", DOCKER),
        ("--root /run/user/1000/docker/runtime-runc/moby/ create --bundle /b/c1 c1", DOCKER),
        ("--root=/run/docker/runtime-runc/moby-100000.100000 create --bundle /b/c1 c1", DOCKER),
        ("--root /run/containerd/runc/k8s.io create --bundle /b/c1 c1", OTHER),
        ("--root /run/containerd/runc/buildkit create --bundle /b/c1 c1", OTHER),
        ("--root /run/containerd/runc/moby-x create --bundle /b/c1 c1", OTHER),
        ("create --bundle /s/overlay-containers/c1/userdata --pid-file p c1", PODMAN),
        ("create --bundle /s/overlay-containers/c1/userdata/ --pid-file p c1", PODMAN),
        ("create --bundle /s/overlay-containers/c2/userdata --pid-file p c1", OTHER),
        ("create --bundle /var/tmp/buildah123 --pid-file p buildah-buildah123", BUILD),
        ("--root /run/docker/runtime-runc/moby create --bundle /x buildah-buildah1", BUILD),
        ("create --bundle /var/lib/buildkit/executor/abc --keep abc", OTHER),
        ("create --bundle / c1", OTHER),
        ("create --bundle userdata c1", OTHER),
        ("run c1", OTHER),
    ],
)
def test_who_wrote_a_bundle_stands_in_the_command_line(line: str, engine: str) -> None:
    assert Origin.of(Invocation(line.split())).engine == engine


def test_each_carrier() -> None:
    assert (
        requested({"annotations": {"credspec.dev/spec": "file://a.json"}}).spec == "file://a.json"
    )
    assert requested({"windows": {"credentialSpec": '{"a": 1}'}}).spec == 'raw://{"a": 1}'
    assert requested({"windows": {"credentialSpec": {"a": 1}}}).spec == 'raw://{"a": 1}'
    config = {"process": {"env": ["CREDSPEC=file://a.json"]}, "mounts": [CONSENT]}
    assert requested(config, DOCKERS).spec == "file://a.json"


def test_our_variables_are_taken_out_whoever_carries_the_spec() -> None:
    config: dict[str, Any] = {
        "annotations": {"credspec.dev/spec": "file://a.json"},
        "process": {
            "env": ["A=1", "CREDSPEC=file://a.json", "CREDSPECS=2", "CREDSPEC_KEYTAB=true"]
        },
    }
    found = requested(config)
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
        take_ticket_request(config)


@pytest.mark.parametrize(
    "name", ["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"]
)
def test_the_sandbox_of_a_pod_has_no_use_for_tickets(name: str) -> None:
    annotations = {"credspec.dev/spec": "file://a.json", name: "sandbox"}
    assert take_ticket_request({"annotations": annotations}) is None
    assert requested({"annotations": {**annotations, name: "container"}}).spec == "file://a.json"


SPEC = {"credspec.dev/spec": "file://a.json", "io.container.manager": "libpod"}
GRASPING = {"credspec.dev/owner": "7", "credspec.dev/mode": "0666", "credspec.dev/keytab": "true"}
PODMANS = Origin(PODMAN, CONTAINER)


def test_podmans_annotations_count_if_the_image_does_not_set_them(tmp_path: Path) -> None:
    config = write_storage(tmp_path, {"a": "b", "credspec.dev/mode": "0644"})
    config["annotations"] = SPEC | {"credspec.dev/mode": "0640", "credspec.dev/keytab": "true"}
    found = requested(config, PODMANS)
    assert (found.spec, found.mode, found.keytab) == ("file://a.json", 0o640, True)


def test_podmans_annotations_are_confirmed_too(tmp_path: Path) -> None:
    config = write_storage(tmp_path, {})
    config["annotations"] = dict(SPEC)
    config["mounts"].pop()
    with pytest.raises(ShimError, match="spec-carrier-unconfirmed") as caught:
        take_ticket_request(config, PODMANS)
    assert "--tmpfs /run/credspec" in str(caught.value)


def test_a_tmpfs_proves_nothing_with_podman(tmp_path: Path) -> None:
    """An image whose /tmp is a link to /run/credspec makes one of any of Podman's own."""
    config = write_storage(tmp_path, {"credspec.dev/spec": "file://a.json"})
    config["annotations"] = dict(SPEC)
    with pytest.raises(ShimError, match="spec-carrier-unconfirmed") as caught:
        take_ticket_request(config, PODMANS)
    assert "the image itself sets it" in str(caught.value)


@pytest.mark.parametrize(("name", "value"), GRASPING.items())
def test_an_image_of_podmans_chooses_no_option(tmp_path: Path, name: str, value: str) -> None:
    config = write_storage(tmp_path, {name: value})
    config["annotations"] = SPEC | {name: value}
    with pytest.raises(ShimError, match="option-unconfirmed") as caught:
        take_ticket_request(config, PODMANS)
    assert name in str(caught.value)


def test_podmans_image_that_cannot_be_found_is_not_trusted(tmp_path: Path) -> None:
    config = write_storage(tmp_path, {})
    config["annotations"] = dict(SPEC)
    with pytest.raises(ShimError, match="spec-carrier-unconfirmed") as caught:
        take_ticket_request(config, Origin(PODMAN, "f" * 64))
    assert "--rootfs" in str(caught.value)


@pytest.mark.parametrize("forged", ["io.kubernetes.cri-o.ContainerType", "io.container.manager"])
def test_an_image_of_podmans_takes_no_identity_away(tmp_path: Path, forged: str) -> None:
    """One that calls its container a sandbox, or another engine's, does not lose the spec."""
    config = write_storage(tmp_path, {forged: "sandbox"})
    config["annotations"] = SPEC | {forged: "sandbox"}
    assert requested(config, PODMANS).spec == "file://a.json"


def test_the_sandbox_of_a_pod_of_podmans_has_no_use_for_tickets(tmp_path: Path) -> None:
    config = write_storage(tmp_path, {})
    config["annotations"] = SPEC | {"io.kubernetes.cri-o.ContainerType": "sandbox"}
    assert take_ticket_request(config, PODMANS) is None


@pytest.mark.parametrize("origin", [OTHER, DOCKER])
def test_what_looks_like_podmans_or_buildahs_but_is_not_is_refused(origin: str) -> None:
    podmans = {"source": "/x", "destination": "/run/.containerenv"}
    for config in (
        {"annotations": dict(SPEC), "mounts": [CONSENT]},
        {"annotations": {"credspec.dev/spec": "file://a.json"}, "mounts": [podmans, CONSENT]},
    ):
        with pytest.raises(ShimError, match="spec-carrier-unconfirmed"):
            take_ticket_request(config, Origin(origin))


@pytest.mark.parametrize(
    "config",
    [
        {"annotations": {"credspec.dev/spec": "file://a.json"}},
        {"process": {"env": ["CREDSPEC=file://a.json"]}},
        {"windows": {"credentialSpec": "{}"}},
    ],
)
def test_a_build_has_no_identity(config: dict[str, Any]) -> None:
    """Its Dockerfile can ask for a tmpfs."""
    with pytest.raises(ShimError, match="spec-in-build"):
        take_ticket_request(config | {"mounts": [CONSENT]}, Origin(BUILD))
    assert take_ticket_request({"process": {"env": ["CREDSPEC="]}}, Origin(BUILD)) is None


def test_an_images_variable_alone_chooses_no_identity() -> None:
    with pytest.raises(ShimError, match="spec-carrier-unconfirmed"):
        take_ticket_request({"process": {"env": ["CREDSPEC=file://a.json"]}}, DOCKERS)
    volume = CONSENT | {"type": "bind"}
    with pytest.raises(ShimError, match="spec-carrier-unconfirmed"):
        take_ticket_request(
            {"process": {"env": ["CREDSPEC=file://a.json"]}, "mounts": [volume]}, DOCKERS
        )


@pytest.mark.parametrize("engine", [OTHER, PODMAN])
def test_a_variable_counts_with_docker_only(engine: str) -> None:
    config = {"process": {"env": ["CREDSPEC=file://a.json"]}, "mounts": [CONSENT]}
    with pytest.raises(ShimError, match="spec-carrier-unconfirmed") as caught:
        take_ticket_request(config, Origin(engine))
    assert "credspec.dev/spec" in str(caught.value)


def by_variable(*env: str, tmpfs: tuple[str, ...] = ()) -> dict[str, Any]:
    named = [{"type": "tmpfs", "destination": f"/run/credspec/{option}"} for option in tmpfs]
    env = ("CREDSPEC=file://a.json", *env)
    return {"process": {"env": list(env)}, "mounts": [CONSENT, *named]}


@pytest.mark.parametrize("option", ["OWNER=1", "MODE=0666", "MODE=0400", "KEYTAB=true"])
def test_an_images_variables_choose_no_option(option: str) -> None:
    with pytest.raises(ShimError, match="option-unconfirmed") as caught:
        take_ticket_request(by_variable(f"CREDSPEC_{option}"), DOCKERS)
    assert f"credspec.dev/{option.partition('=')[0].lower()}" in str(caught.value)
    # Named otherwise, too: one that was confirmed confirms no other.
    with pytest.raises(ShimError, match="option-unconfirmed"):
        take_ticket_request(by_variable(f"CREDSPEC_{option}", tmpfs=("mode=0444",)), DOCKERS)


def test_options_that_a_tmpfs_names_are_the_users() -> None:
    tmpfs = ("owner=5:6", "mode=0440", "keytab=true")
    found = requested(by_variable("CREDSPEC_MODE=0440", tmpfs=tmpfs), DOCKERS)
    assert (found.uid, found.gid, found.mode, found.keytab) == (5, 6, 0o440, True)
    with pytest.raises(ShimError, match="option-invalid"):
        take_ticket_request(by_variable(tmpfs=("modus=0440",)), DOCKERS)
    with pytest.raises(ShimError, match="option-carriers-disagree"):
        take_ticket_request(by_variable(tmpfs=("mode=0440", "mode=0400")), DOCKERS)
    # Podman makes a tmpfs where the image's links lead.
    with pytest.raises(ShimError, match="option-unconfirmed"):
        take_ticket_request(by_annotation() | {"mounts": by_variable(tmpfs=tmpfs)["mounts"]})


def by_annotation(**more: str) -> dict[str, Any]:
    return {"annotations": {"credspec.dev/spec": "file://a.json"} | more}


def test_an_annotation_of_dockers_user_is_an_option_whoever_carries_the_spec() -> None:
    config = by_variable() | {"annotations": {"credspec.dev/mode": "0440"}}
    assert requested(config, DOCKERS).mode == 0o440


def test_two_values_of_a_variable_are_refused() -> None:
    with pytest.raises(ShimError, match="spec-carriers-disagree"):
        take_ticket_request(by_variable("CREDSPEC=file://b.json"), DOCKERS)


@given(st.sampled_from(ANNOTATIONS).flatmap(spellings), st.sampled_from([DOCKER, PODMAN, OTHER]))
def test_an_annotation_in_another_spelling_is_refused(name: str, engine: str) -> None:
    with pytest.raises(ShimError, match="carrier-misspelt") as caught:
        take_ticket_request({"annotations": {name: "file://a.json"}}, Origin(engine))
    assert "did you mean credspec.dev/" in str(caught.value)
    assert str(caught.value).isprintable()


@given(st.sampled_from(VARIABLES).flatmap(spellings))
def test_a_variable_in_another_spelling_is_refused(name: str) -> None:
    with pytest.raises(ShimError, match="carrier-misspelt") as caught:
        take_ticket_request(
            {"process": {"env": [f"{name}=file://a.json"]}, "mounts": [CONSENT]}, DOCKERS
        )
    assert "did you mean CREDSPEC" in str(caught.value)
    # Where an annotation carries the spec, variables are the image's business.
    config = by_annotation() | {"process": {"env": [f"{name}=file://a.json"]}}
    assert requested(config, DOCKERS).spec == "file://a.json"


@pytest.mark.parametrize("name", ["credspec.dev/specs", "credspec.dev/keytabs", "credspec.dev/"])
def test_an_annotation_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(ShimError, match="carrier-misspelt") as caught:
        take_ticket_request(by_annotation(**{name: "x"}))
    assert "None" not in str(caught.value)
    assert "did you mean" in str(caught.value) or ", ".join(ANNOTATIONS) in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [{}, {"process": None}, {"process": {"env": ["CREDSPEC="]}}, {"annotations": {"x": "y"}}],
)
def test_no_carrier(config: dict[str, Any]) -> None:
    assert take_ticket_request(config) is None


def test_a_longer_spec_than_any_document_is_refused() -> None:
    longest = "raw://".ljust(2**17, "x")
    found = take_ticket_request({"annotations": {"credspec.dev/spec": longest}})
    assert found is not None
    assert found.spec == longest
    with pytest.raises(ShimError, match="spec-too-large"):
        take_ticket_request({"annotations": {"credspec.dev/spec": longest + "x"}})


def optioned(carrier: str, **options: str) -> dict[str, Any]:
    """Return a configuration that carries a spec and options the one way or the other."""
    user = {"user": {"uid": 5, "gid": 6}}
    if carrier == "annotation":
        named = {f"credspec.dev/{name}": value for name, value in options.items()}
        return {"annotations": {"credspec.dev/spec": "file://a.json"} | named, "process": user}
    config = by_variable(tmpfs=tuple(f"{name}={value}" for name, value in options.items()))
    config["process"] |= user
    return config


@pytest.mark.parametrize("carrier", ["annotation", "tmpfs"])
def test_options(carrier: str) -> None:
    def requested(config: dict[str, Any]) -> TicketRequest:
        found = take_ticket_request(config, DOCKERS)
        assert found is not None
        return found

    plain = requested(optioned(carrier))
    assert (plain.uid, plain.gid, plain.mode, plain.keytab) == (5, 6, 0o600, False)
    assert plain.directory_mode == 0o700
    found = requested(optioned(carrier, owner="1000:1001", mode="0640", keytab="true"))
    assert (found.uid, found.gid, found.mode, found.keytab) == (1000, 1001, 0o640, True)
    assert found.directory_mode == 0o750
    assert requested(optioned(carrier, owner="1000")).gid == 6
    assert requested(optioned(carrier, mode="444")).directory_mode == 0o755
    assert not requested(optioned(carrier, keytab="false")).keytab
    assert (plain.tickets, plain.services) == ("tgt", ())
    named = requested(optioned(carrier, tickets="services", services="HTTP/a,MSSQLSvc/b:1433"))
    assert (named.tickets, named.services) == ("services", ("HTTP/a", "MSSQLSvc/b:1433"))
    empty = requested(optioned(carrier, owner="", mode="", keytab=""))
    assert (empty.uid, empty.gid, empty.mode, empty.keytab) == (5, 6, 0o600, False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("owner", value) for value in ("app", "1:2:3", "-1", "1:", ":1", "\u0661", "4294967295")),
        *(("mode", value) for value in ("rw", "0755", "0040", "4600", "60", "00600", "0o600")),
        *(("keytab", value) for value in ("yes", "\x1b[31m", "x" * 2**20)),
        *(("tickets", value) for value in ("all", "\x1b[31m", "x" * 2**20)),
        *(("services", value) for value in ("HTTP", "krbtgt/A", "\x1b[31m/a", "HTTP/a," * 2**18)),
    ],
)
@pytest.mark.parametrize("carrier", ["annotation", "tmpfs"])
def test_options_that_are_none(carrier: str, name: str, value: str) -> None:
    with pytest.raises(ShimError, match="option-invalid") as caught:
        take_ticket_request(optioned(carrier, **{name: value}), DOCKERS)
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
    assert (requested(config).uid, requested(config).gid) == (500000, 100005)
    config["annotations"]["credspec.dev/owner"] = "1:2"
    assert (requested(config).uid, requested(config).gid) == (100001, 100002)
    config["annotations"]["credspec.dev/owner"] = "2000"
    with pytest.raises(ShimError, match="container-user-unmapped"):
        take_ticket_request(config)


def test_ids_through_the_runtimes_own_user_namespace_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rootless engine is in a namespace itself, where root is the user."""
    own = [(0, 1000, 1), (1, 200000, 65536)]
    monkeypatch.setattr("credspec.contract.ticket_options.own_id_ranges", lambda _: own)
    config: dict[str, Any] = {
        "annotations": {"credspec.dev/spec": "file://a.json"},
        "process": {"user": {"uid": 0, "gid": 5}},
    }
    found = take_ticket_request(config, is_users=True)
    assert found is not None
    assert (found.uid, found.gid) == (1000, 200004)
    # An agent in the same namespace counts as this process does.
    assert (requested(config).uid, requested(config).gid) == (0, 5)
    config["process"]["user"]["uid"] = 70000
    with pytest.raises(ShimError, match="container-user-unmapped"):
        take_ticket_request(config, is_users=True)


@given(st.integers(0, 2**32 - 2), st.integers(0, 2**32 - 2))
def test_ids_without_a_user_namespace(uid: int, gid: int) -> None:
    config = {
        "annotations": {"credspec.dev/spec": "file://a.json"},
        "process": {"user": {"uid": uid, "gid": gid}},
    }
    assert (requested(config).uid, requested(config).gid) == (uid, gid)


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
        take_ticket_request(config)


AT_TICKETS = [
    "KRB5CCNAME=FILE:/run/credspec/krb5cc",
    "KRB5CCNAME=/run/credspec/krb5cc",
    "KRB5CCNAME=DIR:/run//credspec/./cc",
    "KRB5_CONFIG=/run/credspec/krb5.conf:/etc/krb5.conf",
    "KRB5_CONFIG=/etc/krb5.conf:/var/run/credspec/krb5.conf",
    "KRB5_KTNAME=FILE:/run/credspec/krb5.keytab",
    "KRB5_CLIENT_KTNAME=/run/credspec/krb5.keytab",
]
NOT_AT_TICKETS = [
    "KRB5CCNAME=FILE:/run/credspecs/krb5cc",
    "KRB5CCNAME=FILE:/tmp/run/credspec/krb5cc",
    "KRB5CCNAME=",
    "KRB5CCNAME=KEYRING:persistent:0",
    "KRB5_CONFIG=/etc/krb5.conf",
    "NOTE=/run/credspec/krb5cc",
    "KRB5_TRACE=relative/run/credspec",
]


@pytest.mark.parametrize("variable", AT_TICKETS)
@pytest.mark.parametrize("engine", [DOCKER, PODMAN, OTHER])
def test_variables_that_name_tickets_without_a_spec_are_refused(variable: str, engine: str) -> None:
    """Such a container would start, and find no ticket."""
    config = {"process": {"env": ["A=1", variable]}, "mounts": [{"destination": "/proc"}]}
    with pytest.raises(ShimError, match=rf"{variable.partition('=')[0]} .*\[spec-missing\]"):
        take_ticket_request(config, Origin(engine))
    # Tickets of the user's own may be mounted there.
    for target in ("/run/credspec", "/run/credspec/", "/run"):
        mounted = config | {"mounts": [{"type": "bind", "destination": target}]}
        assert take_ticket_request(mounted, Origin(engine)) is None
    assert take_ticket_request(config, Origin(BUILD)) is None, (
        "a Dockerfile's is for containers of the image"
    )


@pytest.mark.parametrize("target", ["/run/credspec", "/run/credspec/", "/run/credspec/mode=0440"])
def test_mounts_of_tickets_without_a_spec_are_refused(target: str) -> None:
    with pytest.raises(ShimError, match="spec-missing"):
        take_ticket_request({"mounts": [{"type": "tmpfs", "destination": target}]}, DOCKERS)


@given(
    st.lists(st.sampled_from(NOT_AT_TICKETS) | st.text().map("A={}".format)),
    st.lists(st.sampled_from(["/run", "/run/secrets", "/srv", "/run/credspecs", "/proc"])),
)
def test_ordinary_containers_start_under_a_default_runtime(
    environment: list[str], targets: list[str]
) -> None:
    mounts = [{"type": "tmpfs", "destination": target} for target in targets]
    config = {"process": {"env": environment}, "mounts": mounts}
    assert take_ticket_request(config, DOCKERS) is None


def test_the_gateways_note_of_a_request_means_nothing() -> None:
    config: dict[str, Any] = {
        "annotations": {"credspec.dev/spec": "file://a", "credspec.dev/requested": "e30"}
    }
    assert requested(config).spec == "file://a"
    config = {
        "process": {"env": ["CREDSPEC=file://a"]},
        "mounts": [CONSENT, {"type": "tmpfs", "destination": "/run/credspec/requested=e3/0"}],
    }
    assert requested(config, DOCKERS).spec == "file://a"
