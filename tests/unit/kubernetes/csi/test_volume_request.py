"""What a pod's author can write into a volume, and what of it counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.contract import selinux_label
from credspec.errors import UsageError
from credspec.kubernetes.csi import csi_pb2 as wire
from credspec.kubernetes.csi.volume_request import (
    ATTRIBUTES,
    KUBELETS,
    FileOptions,
    Pod,
    lease_of,
    valid_target,
    valid_volume_id,
    volume_request,
)
from support.kubernetes.publish_requests import INFO, POD_UID, publish_request, target_in

PODS = Path("/var/lib/kubelet/pods")


def refused(request: wire.NodePublishVolumeRequest) -> str:
    with pytest.raises(UsageError) as caught:
        volume_request(request, PODS)
    assert len(str(caught.value)) < 700
    return caught.value.code


def test_a_volume() -> None:
    found = volume_request(publish_request(PODS), PODS)
    assert found.pod == Pod(namespace="shop", name="web-0", uid=POD_UID, service_account="web")
    assert found.spec_name == "webapp01"
    assert found.target == target_in(PODS)
    assert found.options == FileOptions(uid=0, gid=0, mode=0o600)
    assert found.lease_id == lease_of("csi-0123")
    assert len(found.lease_id) == 32


@pytest.mark.parametrize(
    ("attributes", "group", "expected"),
    [
        ({}, "2000", FileOptions(uid=0, gid=2000, mode=0o660)),
        ({"uid": "1000"}, "", FileOptions(uid=1000, gid=0, mode=0o600)),
        ({"uid": "4294967294"}, "", FileOptions(uid=2**32 - 2, gid=0, mode=0o600)),
        ({"uid": "1000", "mode": "0640"}, "7", FileOptions(uid=1000, gid=7, mode=0o640)),
        ({"mode": "440"}, "7", FileOptions(uid=0, gid=7, mode=0o440)),
        ({"keytab": "true"}, "", FileOptions(uid=0, gid=0, mode=0o600, keytab=True)),
        ({"keytab": "false"}, "", FileOptions(uid=0, gid=0, mode=0o600)),
        (
            {"tickets": "services", "services": "HTTP/a, HTTP/b"},
            "",
            FileOptions(uid=0, gid=0, mode=0o600, tickets="services", services="HTTP/a, HTTP/b"),
        ),
    ],
)
def test_whose_the_files_are(
    attributes: dict[str, str | None], group: str, expected: FileOptions
) -> None:
    assert volume_request(publish_request(PODS, attributes, group=group), PODS).options == expected


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ({"credentialSpecName": None}, "csi-spec-name"),
        ({"credentialSpecName": ""}, "csi-spec-name"),
        ({"credentialSpecName": "WebApp01"}, "csi-spec-name"),
        ({"credentialSpecName": "../webapp01"}, "csi-spec-name"),
        ({"credentialSpecName": "a" * 254}, "csi-spec-name"),
        ({"credentialSpecName": "a/b"}, "csi-spec-name"),
        ({"credentialspecname": "webapp01"}, "csi-attribute-unknown"),
        ({"gid": "0"}, "csi-attribute-unknown"),
        ({"x" * 10_000: "0"}, "csi-attribute-unknown"),
        ({"uid": "-1"}, "csi-attribute-invalid"),
        ({"uid": ""}, "csi-attribute-invalid"),
        ({"uid": "4294967295"}, "csi-attribute-invalid"),
        ({"uid": "9" * 5000}, "csi-attribute-invalid"),
        ({"uid": "\u0661"}, "csi-attribute-invalid"),
        ({"uid": "root"}, "csi-attribute-invalid"),
        ({"mode": "0644"}, "csi-attribute-invalid"),
        ({"mode": "0602"}, "csi-attribute-invalid"),
        ({"mode": "0700"}, "csi-attribute-invalid"),
        ({"mode": "4600"}, "csi-attribute-invalid"),
        ({"mode": "0o600"}, "csi-attribute-invalid"),
        ({"mode": "0060"}, "csi-attribute-invalid"),
        ({"keytab": "yes"}, "csi-attribute-invalid"),
        ({"tickets": "all"}, "csi-attribute-invalid"),
        ({"tickets": "services"}, "csi-attribute-invalid"),
        ({"services": "HTTP/a"}, "csi-attribute-invalid"),
        ({"tickets": "services", "services": "krbtgt/A"}, "csi-attribute-invalid"),
        (
            {"tickets": "services", "services": "HTTP/a", "keytab": "true"},
            "csi-attribute-invalid",
        ),
        ({f"{KUBELETS}ephemeral": "false"}, "csi-pod-info"),
        ({f"{KUBELETS}ephemeral": None}, "csi-pod-info"),
        ({f"{KUBELETS}pod.uid": None}, "csi-pod-info"),
        ({f"{KUBELETS}pod.name": None}, "csi-pod-info"),
        ({f"{KUBELETS}pod.namespace": None}, "csi-pod-info"),
        ({f"{KUBELETS}pod.namespace": "a:b"}, "csi-pod-info"),
        ({f"{KUBELETS}serviceAccount.name": None}, "csi-pod-info"),
        ({f"{KUBELETS}serviceAccount.name": "web:admin"}, "csi-pod-info"),
    ],
)
def test_what_is_refused(attributes: dict[str, str | None], code: str) -> None:
    assert refused(publish_request(PODS, attributes)) == code


@pytest.mark.parametrize(
    "target",
    [
        "",
        "relative",
        "/",
        "/var/lib/kubelet",
        "/var/lib/kubelet/pods",
        f"/var/lib/kubelet/pods/{POD_UID}/../other/mount",
        f"/var/lib/kubelet/pods/{POD_UID}//mount",
        f"/var/lib/kubelet/pods/{POD_UID}/./mount",
        f"/var/lib/kubelet/pods/{POD_UID}/mo\nunt",
        f"/var/lib/kubelet/pods/{POD_UID}/{'x' * 256}",
        f"/var/lib/kubelet/pods/{POD_UID}{'/x' * 2100}",
        "/var/lib/kubelet/podsofothers/x/mount",
        "/etc",
    ],
)
def test_targets_outside_of_the_kubelets_pods(target: str) -> None:
    assert refused(publish_request(PODS, target=target)) == "csi-target-path"
    with pytest.raises(UsageError, match="csi-target-path"):
        valid_target(target, PODS)


@pytest.mark.parametrize("part", ["", ".", "..", "a\nb", "x" * 256])
def test_no_part_of_a_target_may_be_anything_but_a_name(part: str) -> None:
    parts = str(target_in(PODS)).split("/")[1:]
    for place in range(len(parts) + 1):
        target = "/".join(["", *parts[:place], part, *parts[place:]])
        with pytest.raises(UsageError, match="csi-target-path"):
            valid_target(target, PODS)


@pytest.mark.parametrize("uid", ["a b", "a.b", "a:b", "\u0661", "x" * 65, f"{POD_UID} "])
def test_a_directory_of_another_kind_is_no_pods(uid: str) -> None:
    context: dict[str, str | None] = {f"{KUBELETS}pod.uid": uid}
    assert refused(publish_request(PODS, context, target=str(target_in(PODS, uid)))) == (
        "csi-pod-info"
    )


@pytest.mark.parametrize("volume_id", ["", "a\nb", "x" * 1025])
def test_volume_ids(volume_id: str) -> None:
    assert refused(publish_request(PODS, volume_id=volume_id)) == "csi-volume-id"
    with pytest.raises(UsageError, match="csi-volume-id"):
        valid_volume_id(volume_id)


def test_capabilities_that_are_not_served() -> None:
    block = wire.VolumeCapability(block=wire.VolumeCapability.BlockVolume())
    assert refused(publish_request(PODS, volume_capability=block)) == "csi-capability"
    assert refused(publish_request(PODS, volume_capability=None)) == "csi-capability"
    for flags in (("suid",), ("context=a", "context=b"), ("context",)):
        assert refused(publish_request(PODS, flags=flags)) == "csi-capability"


def test_the_label_of_selinux(monkeypatch: pytest.MonkeyPatch) -> None:
    label = "system_u:object_r:container_file_t:s0:c1,c2"
    request = publish_request(PODS, flags=(f'context="{label}"',))
    assert volume_request(request, PODS).options.label == "", "the kernel does not know the option"
    monkeypatch.setattr(selinux_label, "is_enabled", lambda: True)
    assert volume_request(request, PODS).options.label == label
    for wrong in ("x", 'a:b:c",uid=0', "a:b:c\0"):
        assert refused(publish_request(PODS, flags=(f"context={wrong}",))) == "csi-capability"


FORGED = st.dictionaries(
    st.sampled_from(
        [
            *INFO,
            f"{KUBELETS}serviceAccount.tokens",
            f"{KUBELETS}pod.uid ",
            f"{KUBELETS}x",
        ]
    ),
    st.sampled_from(["true", "kube-system", "admin", POD_UID, "other", '{"": {"token": "t"}}', ""]),
)


@given(FORGED)
def test_forged_keys_change_nothing_where_the_kubelet_writes_its_own(
    forged: dict[str, str],
) -> None:
    """The kubelet overwrites the five that it knows, and no other."""
    request = publish_request(PODS, {**forged, **INFO})
    assert volume_request(request, PODS) == volume_request(publish_request(PODS), PODS)


@given(FORGED, st.uuids())
def test_without_the_kubelets_word_nobody_is_believed(forged: dict[str, str], uid: object) -> None:
    """As with a CSIDriver object without podInfoOnMount: nobody knows the UID of a pod to come."""
    request = publish_request(PODS, target=str(target_in(PODS, str(uid))))
    request.volume_context.clear()
    request.volume_context.update(forged | {"credentialSpecName": "webapp01"})
    assert refused(request) == "csi-pod-info"


@given(
    st.dictionaries(st.text(max_size=40) | st.sampled_from(ATTRIBUTES), st.text(max_size=40)),
    st.text(max_size=12),
    st.lists(st.text(max_size=20), max_size=2),
)
def test_any_attributes_give_a_volume_or_a_refusal(
    attributes: dict[str, str], group: str, flags: list[str]
) -> None:
    context = {key: value for key, value in attributes.items() if key not in INFO}
    try:
        request = publish_request(PODS, context, group=group, flags=tuple(flags))
    except (UnicodeEncodeError, ValueError):
        return  # no such request can be sent
    try:
        found = volume_request(request, PODS)
    except UsageError:
        return
    assert found.options.mode & 0o7007 == 0
    assert found.pod.uid == POD_UID


@given(st.text(max_size=30), st.text(max_size=30))
def test_each_volume_has_a_lease_of_its_own(one: str, two: str) -> None:
    try:
        same = lease_of(one) == lease_of(two)
    except UnicodeEncodeError:
        return
    assert same == (one == two)
