"""Requests of a kubelet, as tests change them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from credspec.kubernetes.csi import csi_pb2 as wire

POD_UID = "8f2c9b1e-0000-4000-8000-000000000001"
INFO = {
    "csi.storage.k8s.io/ephemeral": "true",
    "csi.storage.k8s.io/pod.name": "web-0",
    "csi.storage.k8s.io/pod.namespace": "shop",
    "csi.storage.k8s.io/pod.uid": POD_UID,
    "csi.storage.k8s.io/serviceAccount.name": "web",
}


def target_in(pods: Path, pod_uid: str = POD_UID, volume: str = "gmsa") -> Path:
    """Return where the kubelet has a pod's volume published."""
    return pods / pod_uid / "volumes" / "kubernetes.io~csi" / volume / "mount"


def publish_request(
    pods: Path,
    context: dict[str, str | None] | None = None,
    *,
    volume_id: str = "csi-0123",
    target: str | None = None,
    group: str = "",
    flags: tuple[str, ...] = (),
    **more: Any,
) -> wire.NodePublishVolumeRequest:
    """Return a request for a volume of an object; None as a value leaves a key out."""
    values = INFO | {"credentialSpecName": "webapp01"} | (context or {})
    capability = wire.VolumeCapability(
        mount=wire.VolumeCapability.MountVolume(volume_mount_group=group, mount_flags=flags),
        access_mode=wire.VolumeCapability.AccessMode(
            mode=wire.VolumeCapability.AccessMode.SINGLE_NODE_WRITER
        ),
    )
    fields: dict[str, Any] = {
        "volume_id": volume_id,
        "target_path": str(target_in(pods)) if target is None else target,
        "volume_capability": capability,
        "volume_context": {key: value for key, value in values.items() if value is not None},
    }
    return wire.NodePublishVolumeRequest(**fields | more)
