"""The objects that go with a ``GMSACredentialSpec``: who may use it, and a pod that does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from credspec.contract.lease_environment import LEASE_ENVIRONMENT
from credspec.contract.names import MOUNT_POINT
from credspec.contract.ticket_options import short_name
from credspec.kubernetes.objects.names import (
    ANNOTATION,
    DRIVER,
    GROUP,
    PLURAL,
    SPEC_ATTRIBUTE,
    USE,
    volume_name,
)

IMAGE: Final = "registry.example.com/app:1"
"""The image of example pods, to be replaced."""

_RBAC: Final = "rbac.authorization.k8s.io"
_MAX_NAME: Final = 253
_MAX_CONTAINER: Final = 63
_USER: Final = 65532


def role_name(spec: str) -> str:
    """Return the name of the role by which an object may be used."""
    return f"use-{spec}"[:_MAX_NAME].rstrip("-.")


def role(spec: str, namespace: str) -> dict[str, Any]:
    """Return the Role that allows to use one object in one namespace."""
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "Role",
        "metadata": {"name": role_name(spec), "namespace": namespace},
        "rules": [
            {"apiGroups": [GROUP], "resources": [PLURAL], "verbs": [USE], "resourceNames": [spec]}
        ],
    }


def role_binding(spec: str, namespace: str, service_account: str) -> dict[str, Any]:
    """Return the RoleBinding that gives that role to a service account."""
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": role_name(spec), "namespace": namespace},
        "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": role_name(spec)},
        "subjects": [{"kind": "ServiceAccount", "name": service_account, "namespace": namespace}],
    }


def pod(
    spec: str,
    namespace: str,
    service_account: str,
    *,
    with_webhook: bool = True,
    options: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return a pod that uses an object: by its annotation, or by a volume without the webhook.

    `options` are those of its tickets, as annotations.
    """
    options = options or {}
    metadata: dict[str, Any] = {"name": spec, "namespace": namespace}
    # What the profile `restricted` of the Pod Security Standards wants.
    container: dict[str, Any] = {
        "name": spec.replace(".", "-")[:_MAX_CONTAINER].strip("-"),
        "image": IMAGE,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    content: dict[str, Any] = {
        "serviceAccountName": service_account,
        "os": {"name": "linux"},
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
    }
    if with_webhook:
        metadata["annotations"] = {ANNOTATION: spec, **options}
    else:
        name = volume_name(spec)
        container["env"] = [
            {"name": variable, "value": value} for variable, value in LEASE_ENVIRONMENT.items()
        ]
        container["volumeMounts"] = [{"name": name, "mountPath": MOUNT_POINT}]
        # Attributes are called as the annotations are, without the domain.
        attributes = {SPEC_ATTRIBUTE: spec}
        attributes |= {short_name(name): value for name, value in options.items()}
        content["volumes"] = [
            {"name": name, "csi": {"driver": DRIVER, "volumeAttributes": attributes}}
        ]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": content}
