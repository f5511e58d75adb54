"""Objects of a cluster, as an administrator and users of credspec write them."""

from __future__ import annotations

from typing import Any

_TEXT = {"type": "string"}


def _strings(*names: str) -> dict[str, Any]:
    return {"type": "object", "properties": dict.fromkeys(names, _TEXT)}


def custom_resource() -> dict[str, Any]:
    """Return the definition of GMSACredentialSpec: every leaf a string, the rest is pruned."""
    accounts = {"type": "array", "items": _strings("Name", "Scope")}
    host = _strings("PluginGUID", "PluginInput", "PortableCcgVersion")
    directory = {"GroupManagedServiceAccounts": accounts, "HostAccountConfig": host}
    join = ("DnsName", "DnsTreeName", "Guid", "MachineAccountName", "NetBiosName", "Sid")
    credspec = {
        "ActiveDirectoryConfig": {"type": "object", "properties": directory},
        "CmsPlugins": {"type": "array", "items": _TEXT},
        "DomainJoinConfig": _strings(*join),
    }
    schema = {
        "type": "object",
        "properties": {
            "apiVersion": _TEXT,
            "kind": _TEXT,
            "metadata": {"type": "object"},
            "credspec": {"type": "object", "properties": credspec},
        },
    }
    names = {
        "kind": "GMSACredentialSpec",
        "plural": "gmsacredentialspecs",
        "singular": "gmsacredentialspec",
        "listKind": "GMSACredentialSpecList",
    }
    definition = _definition("windows.k8s.io", "Cluster", names, schema)
    definition["metadata"]["annotations"] = {
        "api-approved.kubernetes.io": "https://github.com/kubernetes/enhancements/pull/1"
    }
    return definition


def definition_of_any_contents(group: str, plural: str, kind: str) -> dict[str, Any]:
    """Return a definition in the place of another project's, which takes any contents."""
    names = {"plural": plural, "singular": kind.lower(), "kind": kind}
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return _definition(group, "Namespaced", names, schema)


def _definition(
    group: str, scope: str, names: dict[str, str], schema: dict[str, Any]
) -> dict[str, Any]:
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names['plural']}.{group}"},
        "spec": {"group": group, "scope": scope, "names": names, "versions": [version]},
    }


def driver_objects(namespace: str = "credspec") -> list[dict[str, Any]]:
    """Return what the driver needs, as docs/runtimes/kubernetes-csi.md has it."""
    rules = [
        {"apiGroups": ["windows.k8s.io"], "resources": ["gmsacredentialspecs"], "verbs": ["get"]},
        {
            "apiGroups": ["authorization.k8s.io"],
            "resources": ["localsubjectaccessreviews"],
            "verbs": ["create"],
        },
    ]
    rbac = "rbac.authorization.k8s.io/v1"
    account = {"name": "credspec-csi", "namespace": namespace}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account},
        {
            "apiVersion": rbac,
            "kind": "ClusterRole",
            "metadata": {"name": "credspec-csi"},
            "rules": rules,
        },
        {
            "apiVersion": rbac,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "credspec-csi"},
            "roleRef": _role("credspec-csi"),
            "subjects": [{"kind": "ServiceAccount", **account}],
        },
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "CSIDriver",
            "metadata": {"name": "credspec.dev"},
            "spec": {
                "attachRequired": False,
                "podInfoOnMount": True,
                "requiresRepublish": True,
                "fsGroupPolicy": "None",
                "seLinuxMount": True,
                "volumeLifecycleModes": ["Ephemeral"],
            },
        },
    ]


def right_to_use(spec: str, account: str = "default") -> list[dict[str, Any]]:
    """Return what lets a service account of the namespace `default` use an object."""
    rbac = "rbac.authorization.k8s.io/v1"
    rule = {
        "apiGroups": ["windows.k8s.io"],
        "resources": ["gmsacredentialspecs"],
        "resourceNames": [spec],
        "verbs": ["use"],
    }
    subject = {"kind": "ServiceAccount", "name": account, "namespace": "default"}
    name = f"use-{spec}"
    return [
        {"apiVersion": rbac, "kind": "ClusterRole", "metadata": {"name": name}, "rules": [rule]},
        {
            "apiVersion": rbac,
            "kind": "RoleBinding",
            "metadata": {"name": name, "namespace": "default"},
            "roleRef": _role(name),
            "subjects": [subject],
        },
    ]


def pod(name: str, spec: str, image: str, *, line: str = "klist; sleep 3600") -> dict[str, Any]:
    """Return a pod that is not root's, with a volume of an object."""
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", line],
        "env": [
            {"name": "KRB5CCNAME", "value": "/run/credspec/krb5cc"},
            {"name": "KRB5_CONFIG", "value": "/run/credspec/krb5.conf"},
        ],
        "volumeMounts": [{"name": "gmsa", "mountPath": "/run/credspec"}],
    }
    volume = {"driver": "credspec.dev", "volumeAttributes": {"credentialSpecName": spec}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000},
            "containers": [container],
            "volumes": [{"name": "gmsa", "csi": volume}],
        },
    }


def _role(name: str) -> dict[str, str]:
    return {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
