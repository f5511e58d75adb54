"""Reviews as the API server sends them, and the answers taken apart."""

from __future__ import annotations

import base64
import json
from typing import Any

from credspec.kubernetes.api.reviews import Decision
from credspec.kubernetes.webhook.recent_grants import RecentGrants

CREDSPEC = {
    "CmsPlugins": ["ActiveDirectory"],
    "DomainJoinConfig": {"DnsName": "contoso.com", "MachineAccountName": "WebApp01"},
    "ActiveDirectoryConfig": {
        "GroupManagedServiceAccounts": [{"Name": "WebApp01", "Scope": "contoso.com"}]
    },
}


class SimulatedCluster:
    """A cluster with objects and permissions; what it is asked is in `asked`."""

    def __init__(self, objects: dict[str, Any], users: set[tuple[str, str, str]]) -> None:
        self.objects, self.users = objects, users
        self.asked: list[tuple[str, ...]] = []
        self.now = 0.0
        self.grants = RecentGrants(lambda: self.now)

    async def credential_spec(self, name: str) -> dict[str, Any] | None:
        self.asked.append(("get", name))
        return self.objects.get(name)

    async def may_use(self, namespace: str, account: str, name: str) -> Decision:
        self.asked.append(("use", namespace, account, name))
        is_allowed = (namespace, account, name) in self.users
        return Decision(is_allowed, "" if is_allowed else "no rule")


def gmsa(name: str, **members: Any) -> dict[str, Any]:
    return {
        "apiVersion": "windows.k8s.io/v1",
        "kind": "GMSACredentialSpec",
        "metadata": {"name": name},
        "credspec": CREDSPEC,
        **members,
    }


def review(
    pod: Any, *, operation: str = "CREATE", old: Any = None, sub_resource: str = "", **members: Any
) -> bytes:
    request = {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "subResource": sub_resource,
        "namespace": "shop",
        "operation": operation,
        "object": pod,
        "oldObject": old,
        **members,
    }
    return json.dumps(
        {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    ).encode()


def patch_in(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the patch of an answer that allows the pod."""
    response = document["response"]
    assert response["allowed"], response
    if "patch" not in response:
        return []
    assert response["patchType"] == "JSONPatch"
    found: list[dict[str, Any]] = json.loads(base64.b64decode(response["patch"]))
    return found
