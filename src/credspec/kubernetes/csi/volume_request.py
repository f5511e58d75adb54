"""What the kubelet asks a volume to be: who the pod is, what its author wants.

The pod's author writes the attributes, also such that begin like the kubelet's own. So what the
kubelet says of a pod counts only if it proves to be the kubelet's, see `_pod`; of attributes only
those that are known here count.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from credspec.contract.errors import ShimError
from credspec.contract.selinux_label import mount_label
from credspec.contract.ticket_options import file_mode, kind_of_tickets
from credspec.errors import UsageError
from credspec.kubernetes.objects.names import (
    KEYTAB_ATTRIBUTE,
    MODE_ATTRIBUTE,
    SERVICES_ATTRIBUTE,
    SPEC_ATTRIBUTE,
    TICKETS_ATTRIBUTE,
    UID_ATTRIBUTE,
    is_spec_name,
)

if TYPE_CHECKING:
    from credspec.kubernetes.csi import csi_pb2 as wire

KUBELETS: Final = "csi.storage.k8s.io/"
"""How the kubelet's own keys in a volume's context begin."""

ATTRIBUTES: Final = (
    *(SPEC_ATTRIBUTE, UID_ATTRIBUTE, MODE_ATTRIBUTE, KEYTAB_ATTRIBUTE),
    *(TICKETS_ATTRIBUTE, SERVICES_ATTRIBUTE),
)
"""The attributes of a volume that mean something here."""

_MOST_VOLUME_ID: Final = 1024
_MOST_PATH_BYTES: Final = 4096
_MOST_NAME_BYTES: Final = 255
_MOST_ID: Final = 2**32 - 2
_FOR_OTHERS: Final = 0o007
_POD_UID: Final = re.compile(r"[0-9A-Za-z-]{1,64}")
_NAMESPACE: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_CONTEXT: Final = re.compile(r'(?:context)="?([^"]*)"?')
_PRINTABLE: Final = re.compile(r"[^\x00-\x1f\x7f]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod, and the service account that it runs as."""

    namespace: str
    name: str
    uid: str
    service_account: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOptions:
    """Whose the files are, on the host: `uid`, `gid`, and `mode`; with `keytab` one is there.

    `label` is that of SELinux, empty without. `is_read_only` is whether the pod only reads.
    `tickets` is what the files hold, `services` the list of services as the pod has it.
    """

    uid: int
    gid: int
    mode: int
    keytab: bool = False
    label: str = ""
    is_read_only: bool = False
    tickets: str = "tgt"
    services: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeRequest:
    """A volume as it is to be: its id, where the pod finds it, whose it is, and of which object."""

    volume_id: str
    target: Path
    pod: Pod
    spec_name: str
    options: FileOptions

    @property
    def lease_id(self) -> str:
        """The id of the volume's lease."""
        return lease_of(self.volume_id)


def lease_of(volume_id: str) -> str:
    """Return the id of a volume's lease, derived from the volume: it needs no record."""
    return hashlib.sha256(f"csi\0{volume_id}".encode()).hexdigest()[:32]


def volume_request(request: wire.NodePublishVolumeRequest, pods: Path) -> VolumeRequest:
    """Return what is to be published; `pods` is the kubelet's directory of all pods.

    Raises:
        UsageError: `csi-volume-id`, `csi-target-path`, `csi-capability`, `csi-pod-info`,
            `csi-attribute-unknown`, `csi-attribute-invalid`, `csi-spec-name`.
    """
    volume_id = valid_volume_id(request.volume_id)
    target = valid_target(request.target_path, pods)
    if not request.HasField("volume_capability"):
        raise _capability("no capability", "a file system (mount)")
    if not request.volume_capability.HasField("mount"):
        raise _capability("no file system", "a file system (mount)")
    context = dict(request.volume_context)
    pod = _pod(context, target, pods)
    own = {key: value for key, value in context.items() if not key.startswith(KUBELETS)}
    spec_name = own.get(SPEC_ATTRIBUTE)
    for key in own:
        if key not in ATTRIBUTES:
            raise UsageError.of(
                "csi-attribute-unknown",
                f"{key[:80]!r} is not known",
                where="volumeAttributes",
                expected=", ".join(ATTRIBUTES),
                remedy="correct its name, or remove it",
            )
    if not is_spec_name(spec_name):
        raise UsageError.of(
            "csi-spec-name",
            "there is none" if spec_name is None else f"{spec_name[:80]!r} is not one",
            where=f"volumeAttributes/{SPEC_ATTRIBUTE}",
            expected="the name of a GMSACredentialSpec, such as contoso-webapp01",
        )
    return VolumeRequest(
        volume_id=volume_id,
        target=target,
        pod=pod,
        spec_name=str(spec_name),
        options=_options(own, request),
    )


def valid_volume_id(volume_id: str) -> str:
    """Return a volume's id.

    Raises:
        UsageError: `csi-volume-id`.
    """
    if not volume_id or len(volume_id) > _MOST_VOLUME_ID or not _PRINTABLE.fullmatch(volume_id):
        raise UsageError.of("csi-volume-id", "no volume id, or not one", where="volume_id")
    return volume_id


def valid_target(path: str, pods: Path) -> Path:
    """Return where a volume is published: below the directory of the kubelet's pods.

    Raises:
        UsageError: `csi-target-path`.
    """
    parts = path.split("/")[1:]
    is_plain = (
        path.startswith("/")
        and _PRINTABLE.fullmatch(path) is not None
        and not {"", ".", ".."} & set(parts)
        and len(path.encode("utf-8", "replace")) < _MOST_PATH_BYTES
        and all(len(part.encode("utf-8", "replace")) <= _MOST_NAME_BYTES for part in parts)
    )
    if not is_plain or pods not in Path(path).parents:
        raise UsageError.of(
            "csi-target-path",
            repr(path[:200]) if path else "no target path",
            where="target_path",
            expected=f"a path below {pods}, without . and ..",
            remedy="give the driver the kubelet's --root-dir with --kubelet-directory",
        )
    return Path(path)


def _pod(context: Mapping[str, str], target: Path, pods: Path) -> Pod:
    """Return the pod, if it was the kubelet that said who it is.

    Without ``podInfoOnMount`` in the CSIDriver object, the kubelet says nothing and overwrites
    nothing, and a pod's author could write the same keys. But nobody knows a pod's UID before the
    API server has made it, and no pod can be changed afterwards; the kubelet's path has it.
    """
    if context.get(f"{KUBELETS}ephemeral") != "true":
        raise _pod_info("the volume is not an ephemeral one of a pod")
    pod = Pod(
        namespace=context.get(f"{KUBELETS}pod.namespace", ""),
        name=context.get(f"{KUBELETS}pod.name", ""),
        uid=context.get(f"{KUBELETS}pod.uid", ""),
        service_account=context.get(f"{KUBELETS}serviceAccount.name", ""),
    )
    if target.relative_to(pods).parts[0] != pod.uid or not _POD_UID.fullmatch(pod.uid):
        raise _pod_info("the pod's UID is not that of the target path")
    is_named = _NAMESPACE.fullmatch(pod.namespace) and all(
        map(is_spec_name, (pod.name, pod.service_account))
    )
    if not is_named:
        raise _pod_info("namespace, name or service account of the pod are missing")
    return pod


def _options(own: Mapping[str, str], request: wire.NodePublishVolumeRequest) -> FileOptions:
    mount = request.volume_capability.mount
    group = mount.volume_mount_group
    gid = 0 if not group else _number(group, "fsGroup")
    uid = _number(own.get(UID_ATTRIBUTE, "0"), UID_ATTRIBUTE)
    try:
        # CSI wants files that the group reads and writes; programs keep service tickets there.
        mode = file_mode(own.get(MODE_ATTRIBUTE) or ("0660" if group else "0600"))
    except ShimError:
        mode = -1
    if mode < 0 or mode & _FOR_OTHERS:
        raise _invalid(
            MODE_ATTRIBUTE,
            own.get(MODE_ATTRIBUTE, ""),
            "an octal mode such as 0640, which the owner can read and others cannot",
        )
    keytab = own.get(KEYTAB_ATTRIBUTE, "false")
    if keytab not in {"true", "false"}:
        raise _invalid(KEYTAB_ATTRIBUTE, keytab, "true or false")
    services = own.get(SERVICES_ATTRIBUTE, "")
    try:
        tickets, _ = kind_of_tickets(own.get(TICKETS_ATTRIBUTE), services, keytab=keytab == "true")
    except ShimError as error:
        raise _invalid(TICKETS_ATTRIBUTE, own.get(TICKETS_ATTRIBUTE, ""), error.text) from None
    return FileOptions(
        uid=uid,
        gid=gid,
        mode=mode,
        keytab=keytab == "true",
        label=_label(mount.mount_flags),
        is_read_only=request.readonly,
        tickets=tickets,
        services=services,
    )


def _label(flags: Sequence[str]) -> str:
    """Return the SELinux label of the one option that the kubelet gives, empty without."""
    label = ""
    for flag in flags:
        match = _CONTEXT.fullmatch(flag)
        if match is None or len(flags) > 1:
            raise _capability(f"mount option {flag[:80]!r}", "no mount option but context=")
        try:
            label = mount_label({"linux": {"mountLabel": match[1]}})
        except ShimError as error:
            raise _capability(error.text, "an SELinux label") from None
    return label


def _number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _MOST_ID):  # noqa: PLR2004
        raise _invalid(name, text, f"a number from 0 to {_MOST_ID}")
    return int(text)


def _invalid(name: str, found: str, expected: str) -> UsageError:
    return UsageError.of(
        "csi-attribute-invalid",
        repr(found[:80]),
        where=f"volumeAttributes/{name}",
        expected=expected,
    )


def _capability(found: str, expected: str) -> UsageError:
    return UsageError.of("csi-capability", found, where="volume_capability", expected=expected)


def _pod_info(found: str) -> UsageError:
    return UsageError.of(
        "csi-pod-info",
        found,
        where="volume_context",
        expected="what the kubelet says of the pod of an inline volume",
        remedy="the CSIDriver object needs podInfoOnMount: true and volumeLifecycleModes: "
        "[Ephemeral]",
    )
