"""What is added to pods that ask for a credential spec, and that no other pod is touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from credspec.errors import CredspecError
from credspec.kubernetes.webhook.patch import patch_of_debug_containers, patch_of_pod
from credspec.kubernetes.webhook.refusals import PodInvalidError
from support.webhook.json_patch import applied
from support.webhook.pods import faults_of, pods

GOLDEN = Path(__file__).parent / "golden"


def patched(pod: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = applied(pod, patch_of_pod(pod).operations)
    return result


def pod_with(container: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "web", "annotations": {"credspec.dev/gmsa": "webapp01"}},
        "spec": {"containers": [{"name": "app", **(container or {})}], **spec},
    }


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.yaml")), ids=lambda path: path.stem)
def test_examples(path: Path) -> None:
    given, expected = yaml.safe_load_all(path.read_text("utf-8"))
    assert patched(given) == expected
    assert not faults_of(expected)


@settings(max_examples=400)
@given(pods())
def test_a_patched_pod_is_as_valid_as_before_and_stays_as_it_is(pod: dict[str, Any]) -> None:
    once = patched(pod)
    if (pod["spec"].get("os") or {}).get("name") == "windows":
        assert once == pod
        return
    assert not [each for each in faults_of(once) if each not in faults_of(pod)]
    assert not patch_of_pod(once).operations
    assert once == json.loads(json.dumps(once))


@settings(max_examples=200)
@given(pods(asks=False))
def test_a_pod_that_does_not_ask_is_not_touched(pod: dict[str, Any]) -> None:
    patch = patch_of_pod(pod)
    assert (patch.operations, patch.warnings) == ([], [])


@settings(max_examples=200)
@given(pods())
def test_every_container_that_asks_has_the_tickets_of_its_own_spec(pod: dict[str, Any]) -> None:
    if (pod["spec"].get("os") or {}).get("name") == "windows":
        return
    once = patched(pod)
    context = pod["spec"].get("securityContext") or {}
    pods_spec = ((pod["metadata"].get("annotations") or {}).get("credspec.dev/gmsa")) or (
        context.get("windowsOptions") or {}
    ).get("gmsaCredentialSpecName")
    volumes = {
        volume["name"]: volume["csi"]["volumeAttributes"]["credentialSpecName"]
        for volume in once["spec"].get("volumes") or []
        if "csi" in volume
    }
    for kind in ("initContainers", "containers"):
        for before, after in zip(
            pod["spec"].get(kind) or [], once["spec"].get(kind) or [], strict=True
        ):
            own = ((before.get("securityContext") or {}).get("windowsOptions") or {}).get(
                "gmsaCredentialSpecName"
            )
            mounted = [
                volumes[mount["name"]]
                for mount in after.get("volumeMounts") or []
                if mount["mountPath"] == "/run/credspec"
            ]
            assert mounted == ([own or pods_spec] if own or pods_spec else [])
            names = [entry["name"] for entry in after.get("env") or []]
            if mounted:
                assert {"KRB5CCNAME", "KRB5_CONFIG"} <= {*names}
            for entry in before.get("env") or []:
                assert entry in after["env"]


@pytest.mark.parametrize(
    "where",
    [
        {"nodeSelector": {"kubernetes.io/os": "windows"}},
        {"os": {"name": "windows"}},
        {
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [
                            {
                                "matchExpressions": [
                                    {
                                        "key": "kubernetes.io/os",
                                        "operator": "In",
                                        "values": ["windows"],
                                    }
                                ]
                            }
                        ]
                    }
                }
            }
        },
    ],
)
def test_pods_for_windows_are_left_to_windows(where: dict[str, Any]) -> None:
    assert not patch_of_pod(pod_with(**where)).operations


def on_nodes(key: str, operator: str, *values: str) -> dict[str, Any]:
    """Return a term of a node affinity."""
    return {"matchExpressions": [{"key": key, "operator": operator, "values": [*values]}]}


OS = "kubernetes.io/os"
ON_WINDOWS = on_nodes(OS, "In", "windows")


@pytest.mark.parametrize(
    "terms",
    [
        [],
        [on_nodes(OS, "NotIn", "windows")],
        [on_nodes(OS, "In", "linux")],
        [on_nodes(OS, "In", "windows", "linux")],
        [on_nodes(OS, "Exists")],
        [on_nodes("zone", "In", "windows")],
        [ON_WINDOWS, on_nodes("zone", "In", "a")],
        [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["windows"]}]}],
    ],
)
def test_pods_that_may_run_on_linux_as_well_are_patched(terms: list[dict[str, Any]]) -> None:
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    assert patch_of_pod(pod_with(affinity={"nodeAffinity": required})).operations
    # An OS that the pod states says more than where it would be scheduled.
    required["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"] = [ON_WINDOWS]
    linux = pod_with(affinity={"nodeAffinity": required}, os={"name": "linux"})
    assert patch_of_pod(linux).operations


@pytest.mark.parametrize(
    ("contexts", "expected"),
    [
        (({}, {}), 65532),
        (({"runAsUser": 0}, {}), None),
        (({"runAsUser": 0}, {"runAsUser": 1000}), 65532),
        (({"runAsUser": 1000, "runAsGroup": 2000}, {}), 2000),
        (({"runAsGroup": 0}, {}), 65532),
        (({"runAsGroup": 2**31 - 1}, {}), 2**31 - 1),
        (({"runAsGroup": 2**31}, {}), 65532),
        (({}, {"runAsUser": 0}), None),
        (({"fsGroup": 0}, {"runAsUser": 1000}), 0),
    ],
)
def test_a_group_is_added_where_the_user_may_not_be_root(
    contexts: tuple[dict[str, Any], dict[str, Any]], expected: int | None
) -> None:
    pods_context, containers_context = contexts
    pod = pod_with({"securityContext": containers_context}, securityContext=pods_context)
    assert patched(pod)["spec"]["securityContext"].get("fsGroup") == expected


@pytest.mark.parametrize(
    ("pod", "code"),
    [
        (
            pod_with(
                securityContext={"windowsOptions": {"gmsaCredentialSpecName": "webapp02"}},
            ),
            "kubernetes-two-specs",
        ),
        (
            pod_with({"volumeMounts": [{"name": "v", "mountPath": "/run/credspec/"}]}),
            "kubernetes-mount-path-taken",
        ),
        (
            pod_with(volumes=[{"name": "credspec-webapp01", "emptyDir": {}}]),
            "kubernetes-volume-name-taken",
        ),
        (
            pod_with(
                {
                    "securityContext": {
                        "windowsOptions": {"gmsaCredentialSpec": "{}"},
                    }
                }
            ),
            "kubernetes-contents-without-name",
        ),
        *(
            (
                {"metadata": {"annotations": {name: "a"}}, "spec": {}},
                "kubernetes-annotation-unknown",
            )
            for name in ("credspec.dev/gsma", "Credspec.dev/gmsa", "credspec.dev/gmsa.app")
        ),
        *(
            (
                {"metadata": {"annotations": {"credspec.dev/gmsa": name}}, "spec": {}},
                "kubernetes-spec-name",
            )
            for name in ("", "WebApp01", "a/b", "a b", "x" * 254, "-")
        ),
    ],
)
def test_what_cannot_be_is_refused(pod: dict[str, Any], code: str) -> None:
    with pytest.raises(PodInvalidError) as caught:
        patch_of_pod(pod)
    assert (caught.value.code, caught.value.status) == (code, 422)


def csi(name: str, spec: str = "webapp01") -> dict[str, Any]:
    attributes = {"credentialSpecName": spec}
    return {"name": name, "csi": {"driver": "credspec.dev", "volumeAttributes": attributes}}


def test_a_volume_that_the_pod_has_already_is_used() -> None:
    once = patched(pod_with(volumes=[csi("tickets")]))
    assert once["spec"]["volumes"] == [csi("tickets")]
    (mount,) = once["spec"]["containers"][0]["volumeMounts"]
    assert mount == {"name": "tickets", "mountPath": "/run/credspec"}


def test_a_volume_that_is_mounted_twice_stays_so() -> None:
    mounts = [
        {"name": "one", "mountPath": "/a", "readOnly": True},
        {"name": "two", "mountPath": "/run/credspec", "readOnly": True},
    ]
    pod = pod_with({"volumeMounts": mounts}, volumes=[csi("one"), csi("two")])
    assert patched(pod)["spec"]["containers"][0]["volumeMounts"] == mounts
    assert not patch_of_pod(pod).warnings, "what is mounted whole is renewed"


def test_a_container_that_mounts_a_volume_of_a_pod_that_asks_for_nothing_stays_as_it_is() -> None:
    mounts = [{"name": "t", "mountPath": "/run/credspec"}]
    pod = pod_with({"volumeMounts": mounts}, volumes=[csi("t")])
    del pod["metadata"]["annotations"]
    assert not patch_of_pod(pod).operations


def test_a_part_of_the_volume_at_another_path_is_warned_of() -> None:
    mount = {"name": "t", "mountPath": "/etc/krb5.conf", "subPath": "krb5.conf"}
    patch = patch_of_pod(pod_with({"volumeMounts": [mount]}, volumes=[csi("t")]))
    assert "never renewed" in patch.warnings[0]
    mount = {"name": "t", "mountPath": "/run/credspec", "subPathExpr": "$(A)"}
    with pytest.raises(PodInvalidError, match="kubernetes-mount-path-taken"):
        patch_of_pod(pod_with({"volumeMounts": [mount]}, volumes=[csi("t")]))


def test_two_specs_in_one_pod_are_two_volumes() -> None:
    windows = {"windowsOptions": {"gmsaCredentialSpecName": "other.one"}}
    pod = pod_with({"securityContext": windows})
    pod["spec"]["containers"].append({"name": "second"})
    once = patched(pod)
    first, second = (each["volumeMounts"][0]["name"] for each in once["spec"]["containers"])
    assert [volume["name"] for volume in once["spec"]["volumes"]] == [first, second]
    assert second == "credspec-webapp01"
    assert first.startswith("credspec-other-one-")


def test_other_options_of_windows_stay_for_the_api_server_to_refuse() -> None:
    options = {"gmsaCredentialSpecName": "webapp01", "runAsUserName": "x"}
    once = patched(pod_with(os={"name": "linux"}, securityContext={"windowsOptions": options}))
    assert once["spec"]["securityContext"]["windowsOptions"] == {"runAsUserName": "x"}


def test_the_contents_that_the_webhook_for_windows_adds_do_no_harm() -> None:
    options = {"gmsaCredentialSpecName": "webapp01", "gmsaCredentialSpec": '{"a":1}'}
    context = {"windowsOptions": options}
    once = patched(pod_with(securityContext=context))
    assert once["spec"]["securityContext"]["windowsOptions"] == options
    once = patched(pod_with(os={"name": "linux"}, securityContext=context))
    assert "windowsOptions" not in once["spec"]["securityContext"]


def test_ten_thousand_containers() -> None:
    pod = pod_with()
    pod["spec"]["containers"] = [{"name": f"c{number}"} for number in range(10_000)]
    once = patched(pod)
    assert all(len(each["volumeMounts"]) == 1 for each in once["spec"]["containers"])
    assert not patch_of_pod(once).operations


@pytest.mark.parametrize(
    ("annotations", "attributes", "group"),
    [
        ({"owner": "1000"}, {"uid": "1000"}, None),
        ({"owner": "1000:2000", "mode": "0640"}, {"uid": "1000", "mode": "0640"}, 2000),
        ({"keytab": "True"}, {"keytab": "true"}, 65532),
        ({"keytab": "false", "owner": ""}, {}, 65532),
        (
            {"tickets": "Services", "services": "HTTP/a,HTTP/b"},
            {"tickets": "services", "services": "HTTP/a,HTTP/b"},
            65532,
        ),
    ],
)
def test_options_become_attributes(
    annotations: dict[str, str], attributes: dict[str, str], group: int | None
) -> None:
    pod = pod_with()
    pod["metadata"]["annotations"] |= {f"credspec.dev/{k}": v for k, v in annotations.items()}
    once = patched(pod)
    (volume,) = once["spec"]["volumes"]
    expected = {"credentialSpecName": "webapp01", **attributes}
    assert volume["csi"]["volumeAttributes"] == expected
    assert once["spec"].get("securityContext", {}).get("fsGroup") == group
    names = {each["name"] for each in once["spec"]["containers"][0]["env"]}
    assert ("KRB5_KTNAME" in names) == ("keytab" in attributes)
    assert not patch_of_pod(once).operations


@pytest.mark.parametrize("option", ["owner", "mode", "keytab", "tickets", "services"])
def test_an_option_that_is_not_understood_is_refused(option: str) -> None:
    pod = pod_with()
    pod["metadata"]["annotations"][f"credspec.dev/{option}"] = "-1"
    with pytest.raises(PodInvalidError, match="kubernetes-option-invalid"):
        patch_of_pod(pod)


def debug(pod: dict[str, Any], *containers: dict[str, Any]) -> dict[str, Any]:
    new = {**pod, "spec": {**pod["spec"], "ephemeralContainers": list(containers)}}
    result: dict[str, Any] = applied(new, patch_of_debug_containers(new, pod).operations)
    return result


def test_a_debug_container_has_the_tickets_of_its_target() -> None:
    windows = {"windowsOptions": {"gmsaCredentialSpecName": "webapp02"}}
    pod = pod_with({"securityContext": windows})
    pod["spec"]["containers"].append({"name": "second"})
    pod = patched(pod)
    targets = [{"name": "a", "targetContainerName": "app"}, {"name": "b"}]
    made = debug(pod, *targets)
    first, second = made["spec"]["ephemeralContainers"]
    assert first["volumeMounts"] == [{"name": "credspec-webapp02", "mountPath": "/run/credspec"}]
    assert second["volumeMounts"] == [{"name": "credspec-webapp01", "mountPath": "/run/credspec"}]
    assert {each["name"] for each in first["env"]} == {"KRB5CCNAME", "KRB5_CONFIG"}
    assert made["spec"]["containers"] == pod["spec"]["containers"]
    # Those that are there already cannot be changed.
    third = {"name": "c"}
    again = {**made, "spec": {**made["spec"]}}
    again["spec"]["ephemeralContainers"] = [first, {"name": "b"}, third]
    before = {**made, "spec": {**made["spec"], "ephemeralContainers": [first, {"name": "b"}]}}
    paths = [each["path"] for each in patch_of_debug_containers(again, before).operations]
    assert {path.split("/")[3] for path in paths} == {"2"}


def test_a_debug_container_of_a_pod_with_a_volume_of_its_own_has_the_tickets() -> None:
    pod = {"metadata": {}, "spec": {"containers": [{"name": "app"}], "volumes": [csi("t")]}}
    (made,) = debug(pod, {"name": "d"})["spec"]["ephemeralContainers"]
    assert made["volumeMounts"] == [{"name": "t", "mountPath": "/run/credspec"}]


def test_a_debug_container_cannot_ask_for_another_spec() -> None:
    pod = patched(pod_with())
    windows = {"windowsOptions": {"gmsaCredentialSpecName": "webapp02"}}
    with pytest.raises(PodInvalidError, match="kubernetes-debug-spec"):
        debug(pod, {"name": "d", "securityContext": windows})


def test_debug_containers_of_other_pods_are_left_alone() -> None:
    pod = {"metadata": {}, "spec": {"containers": [{"name": "app"}]}}
    assert debug(pod, {"name": "d"})["spec"]["ephemeralContainers"] == [{"name": "d"}]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
KEYS = [
    *("metadata", "annotations", "credspec.dev/gmsa", "name", "spec", "os", "volumes", "csi"),
    *("volumeAttributes", "securityContext", "windowsOptions", "gmsaCredentialSpecName"),
    *("gmsaCredentialSpec", "containers", "initContainers", "ephemeralContainers", "env"),
    *("volumeMounts", "affinity", "nodeAffinity", "nodeSelector", "fsGroup", "runAsUser"),
]


@st.composite
def misshapen(draw: st.DrawFn) -> Any:
    """Return a pod of which a member has another type."""
    pod = draw(pods())
    for _ in range(draw(st.integers(1, 3))):
        table: Any = pod
        while True:
            if isinstance(table, dict):
                key: Any = draw(st.sampled_from([*table, *KEYS]))
            elif isinstance(table, list) and table:
                key = draw(st.integers(0, len(table) - 1))
            else:
                break
            deeper = table.get(key) if isinstance(table, dict) else table[key]
            if not isinstance(deeper, dict | list) or draw(st.booleans()):
                table[key] = draw(VALUES)
                break
            table = deeper
    return pod


@settings(max_examples=400)
@given(misshapen(), misshapen())
def test_no_shape_of_a_pod_raises_anything_but_a_refusal(pod: Any, old: Any) -> None:
    try:
        patch_of_pod(pod)
    except CredspecError as error:
        assert getattr(error, "status", 0) in {400, 422}
    try:
        patch_of_debug_containers(pod, old)
    except CredspecError as error:
        assert getattr(error, "status", 0) in {400, 422}
