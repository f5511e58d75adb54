"""What a client asked for is what inspect shows, and what a container made from that asks for."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.contract.lease_environment import KEYTAB_ENVIRONMENT, LEASE_ENVIRONMENT
from credspec.contract.ticket_options import TicketRequest
from credspec.gateway.create_request import CreateBody
from credspec.gateway.inspect_answer import (
    as_requested,
    image_environment_of,
    image_of,
)
from credspec.shim import carriers
from support.engines.simulated_dockerd import OUR_NAMES, Container, SimulatedDockerd

RAW = 'raw://{"CmsPlugins": ["ActiveDirectory"], "a": "=://\\u00e9"}'
VERSIONS = [(1, 25), (1, 41), (1, 42), (1, 43), (1, 51), None]

references = st.sampled_from(["file://www.json", "FILE://sub/a.json", RAW])
option_names = st.sampled_from(["credentialspec", "CredentialSpec"])
options = st.builds("{}={}".format, option_names, references)
other_options = st.sampled_from(["no-new-privileges", "seccomp=unconfined", "label=disable"])
labels = st.dictionaries(
    st.sampled_from(["credspec.dev/owner", "app"]), st.sampled_from(["1000:1000", "33"]), max_size=2
) | st.fixed_dictionaries(
    {"credspec.dev/mode": st.just("0440"), "credspec.dev/keytab": st.sampled_from(["true", "0"])}
)
option_annotations = st.fixed_dictionaries(
    {},
    optional={
        "com.example/a": st.just("b"),
        "credspec.dev/owner": st.just("33:33"),
        "credspec.dev/spec": st.sampled_from(["file://www.json", "file://other.json"]),
    },
)
variables = st.lists(
    st.sampled_from(
        [
            "A=1",
            "KRB5CCNAME=FILE:/mine",
            f"KRB5CCNAME={LEASE_ENVIRONMENT['KRB5CCNAME']}",
            "KRB5CCNAME=FILE:/run/credspec/krb5cc_other",
            "KRB5CCNAME",
            "KRB5_CONFIG=/mine.conf",
            "KRB5_KTNAME=/mine.keytab",
            "CREDSPEC=file://ignored.json",
            "CREDSPEC_MODE=",
            "PATH=/bin",
        ]
    ),
    max_size=5,
    unique_by=lambda entry: entry.partition("=")[0],
)
mounts = st.fixed_dictionaries(
    {}, optional={"/scratch": st.just("size=1m"), "/run/credspec": st.just("uid=5")}
)
image_variables = st.lists(
    st.sampled_from(
        [
            "PATH=/usr/bin",
            "KRB5CCNAME=FILE:/image",
            "KRB5CCNAME",
            "KRB5_CONFIG",
            "KRB5CCNAME=FILE:/run/credspec/krb5cc",
            "KRB5_KTNAME=FILE:/run/credspec/krb5.keytab",
            "CREDSPEC_MODE=0444",
            "CREDSPEC_OWNER=",
        ]
    ),
    max_size=3,
    unique_by=lambda entry: entry.partition("=")[0],
)


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    """A create request that asks for a spec, by the option or by an annotation."""
    asked = [draw(options)] if draw(st.booleans()) else []
    security = draw(st.permutations([*draw(st.lists(other_options, max_size=2)), *asked]))
    annotations = draw(option_annotations)
    if not asked:
        annotations["credspec.dev/spec"] = draw(references)
    config: dict[str, Any] = {"SecurityOpt": list(security)}
    if annotations:
        config["Annotations"] = annotations
    if tmpfs := draw(mounts):
        config["Tmpfs"] = tmpfs
    runtime = draw(st.sampled_from([None, "", "runc", "credspec"]))
    if runtime is not None:
        config["Runtime"] = runtime
    return {"Image": "x", "Env": draw(variables), "Labels": draw(labels), "HostConfig": config}


def create(dockerd: SimulatedDockerd, body: Any, version: tuple[int, int] | None) -> Container:
    data = json.dumps(body).encode()
    made = CreateBody.unpack(data)
    sent = data if made is None else made.pack(version or dockerd.newest)
    return dockerd.create(json.loads(sent), version)


def inspect(container: Container) -> Any:
    """Return what the gateway makes of dockerd's answer."""
    answer = json.dumps(container.shown()).encode()
    image = image_of(answer, "credspec")
    environment = image_environment_of(container.image()) if image else []
    changed = as_requested(answer, "container", "credspec", environment)
    return json.loads(answer if changed is None else changed)


def identity(container: Container) -> tuple[Any, ...] | None:
    """Return what the shim takes from a container; tmpfs and environment are the bundle's."""
    request = carriers.take_ticket_request(container.bundle(), carriers.Origin(carriers.DOCKER))
    if request is None:
        return None
    assert isinstance(request, TicketRequest)
    return (request.spec, request.uid, request.gid, request.mode, request.keytab)


def copied(shown: Any) -> dict[str, Any]:
    """Return a create request as tools make it from inspect: Config, and HostConfig with it."""
    return {**copy.deepcopy(shown["Config"]), "HostConfig": copy.deepcopy(shown["HostConfig"])}


@given(bodies(), image_variables, st.lists(st.sampled_from(VERSIONS), min_size=2, max_size=4))
def test_a_container_made_from_inspect_has_the_same_identity(
    body: dict[str, Any], image: list[str], versions: list[tuple[int, int] | None]
) -> None:
    dockerd = SimulatedDockerd(image)
    container = create(dockerd, body, versions[0])
    expected = identity(container)
    assert expected is not None
    # What `docker exec` starts has it from there.
    assert any(entry.startswith("KRB5CCNAME=") for entry in container.config["Env"])
    for version in versions[1:]:
        shown = inspect(container)
        container = create(dockerd, copied(shown), version)
        assert identity(container) == expected
        assert any(entry.startswith("KRB5CCNAME=") for entry in container.config["Env"])
        again = inspect(container)
        if version is None or version >= (1, 43) or not shown["HostConfig"].get("Annotations"):
            assert again == shown, "tools see no change"


@given(bodies(), image_variables, st.sampled_from(VERSIONS))
def test_inspect_shows_what_was_asked_for(
    body: dict[str, Any], image: list[str], version: tuple[int, int] | None
) -> None:
    dockerd = SimulatedDockerd(image)
    shown = inspect(create(dockerd, body, version))
    asked, found = body["HostConfig"], shown["HostConfig"]
    assert (found["SecurityOpt"] or []) == asked["SecurityOpt"]
    assert found["Runtime"] == (asked.get("Runtime") or "runc")
    assert found.get("Tmpfs", {}) == asked.get("Tmpfs", {})
    annotations = asked.get("Annotations", {})
    if version is not None and version < (1, 43):
        # dockerd itself drops others than those the gateway knows.
        annotations = {k: v for k, v in annotations.items() if k.startswith("credspec.dev/")}
    assert found.get("Annotations", {}) == annotations
    environment = shown["Config"]["Env"]
    assert environment[: len(body["Env"])] == body["Env"]
    rest = environment[len(body["Env"]) :]
    names = {entry.partition("=")[0] for entry in body["Env"]}
    hidden = {name for name in OUR_NAMES if name.startswith("CREDSPEC")}
    kept = [e for e in image if e.partition("=")[0] not in names | hidden and "=" in e]
    assert sorted(rest) == sorted(kept)


@given(image_variables, st.sampled_from(VERSIONS))
def test_a_container_without_a_spec_is_shown_byte_for_byte(
    image: list[str], version: tuple[int, int] | None
) -> None:
    body = {"Image": "x", "Env": ["A=1"], "HostConfig": {"Runtime": "credspec"}}
    container = SimulatedDockerd(image).create(body, version)
    answer = json.dumps(container.shown()).encode()
    assert as_requested(answer, "container", "credspec", image) is None


@pytest.mark.parametrize("confirmed", [True, False])
def test_an_image_cannot_make_inspect_show_a_spec(confirmed: bool) -> None:
    """All that an image can set: variables, also those that the gateway would set."""
    defaults = LEASE_ENVIRONMENT | KEYTAB_ENVIRONMENT
    image = ["CREDSPEC=file://evil.json", "CREDSPEC_OWNER=", "CREDSPEC_MODE=", "CREDSPEC_KEYTAB="]
    image += [f"{name}={value}" for name, value in defaults.items()]
    config: dict[str, Any] = {"Runtime": "credspec"}
    if confirmed:
        config["Tmpfs"] = {"/run/credspec": ""}
    container = SimulatedDockerd(image).create({"Image": "x", "HostConfig": config}, (1, 41))
    answer = json.dumps(container.shown()).encode()
    assert as_requested(answer, "container", "credspec", image) is None


def test_what_a_user_sets_by_hand_is_shown_as_it_is() -> None:
    by_annotation = {
        "Image": "x",
        "HostConfig": {"Runtime": "credspec", "Annotations": {"credspec.dev/spec": "file://a"}},
    }
    by_variable = {
        "Image": "x",
        "Env": ["CREDSPEC=file://a"],
        "HostConfig": {"Runtime": "credspec", "Tmpfs": {"/run/credspec": ""}},
    }
    for body in (by_annotation, by_variable):
        container = SimulatedDockerd([]).create(body, None)
        answer = json.dumps(container.shown()).encode()
        assert as_requested(answer, "container", "credspec", []) is None


@given(bodies(), st.sampled_from(VERSIONS), st.sampled_from(VERSIONS))
def test_a_tool_that_inspects_dockerd_itself_keeps_the_identity_too(
    body: dict[str, Any], made: tuple[int, int] | None, again: tuple[int, int] | None
) -> None:
    dockerd = SimulatedDockerd([])
    container = create(dockerd, body, made)
    second = create(dockerd, copied(container.shown()), again)
    assert identity(second) == identity(container)


FORGED = [
    {"SecurityOpt": [[0, "apparmor=x"]]},
    {"Annotations": {"com.example/a": "b"}},
    {"Tmpfs": {"/etc": ""}},
    {"added": ["LD_PRELOAD"]},
    {"dropped": [[0, "PATH=/evil"]]},
    {"added": 5},
    {"Runtime": "kata"},
    {"SecurityOpt": [[0, "credentialspec=file://other.json"]]},
    {"SecurityOpt": 5},
    {"SecurityOpt": []},
]


@pytest.mark.parametrize("forged", FORGED)
def test_a_record_that_the_gateway_did_not_write_hides_and_shows_nothing(forged: Any) -> None:
    record = {
        "SecurityOpt": [[0, "credentialspec=file://www.json"]],
        "Runtime": "",
        "Annotations": {},
        "Tmpfs": {},
        "added": [],
        "dropped": [],
    }
    text = base64.urlsafe_b64encode(json.dumps(record | forged).encode()).decode().rstrip("=")
    body = {
        "Image": "x",
        "Env": ["LD_PRELOAD=/x.so"],
        "HostConfig": {
            "Runtime": "credspec",
            "SecurityOpt": [],
            "Annotations": {"credspec.dev/spec": "file://www.json", "credspec.dev/requested": text},
        },
    }
    answer = json.dumps(SimulatedDockerd([]).create(body, None).shown()).encode()
    changed = as_requested(answer, "container", "credspec", [])
    assert changed is None or b"LD_PRELOAD" in changed
    assert changed is None or forged == {"SecurityOpt": []}, "refused as a whole"


@given(st.binary(), st.sampled_from(["container", "list", "usage"]))
def test_no_bytes_break_it(data: bytes, kind: Any) -> None:
    assert as_requested(data, kind, "credspec", []) is None
    assert image_of(data, "credspec") is None


@given(bodies(), image_variables)
def test_lists_show_annotations_as_asked_for(body: dict[str, Any], image: list[str]) -> None:
    container = create(SimulatedDockerd(image), body, (1, 51))
    listed = json.dumps([container.listed(), {"Id": "b", "HostConfig": {"NetworkMode": "none"}}])
    expected = body["HostConfig"].get("Annotations", {})
    for kind, data in (("list", listed), ("usage", f'{{"Containers": {listed}, "Images": []}}')):
        changed = as_requested(data.encode(), kind, "credspec", [])  # type: ignore[arg-type]
        assert changed is not None
        document = json.loads(changed)
        first, second = document if kind == "list" else document["Containers"]
        assert first["HostConfig"].get("Annotations", {}) == expected
        assert second == {"Id": "b", "HostConfig": {"NetworkMode": "none"}}
