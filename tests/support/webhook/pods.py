"""Pods as the API server sends them to webhooks, generated, and whether it would take them."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import strategies as st

SPECS = ["webapp01", "contoso.webapp02", "x" * 60]
NAMES = st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?\Z")
USERS = st.sampled_from([0, 1000, 65532])
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


def some(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return objects with any of the members."""
    return st.fixed_dictionaries({}, optional=members)


def windows_options(specs: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    return some(gmsaCredentialSpecName=specs)


def security_context(specs: st.SearchStrategy[str], *, asks: bool) -> st.SearchStrategy[Any]:
    return st.none() | some(
        runAsUser=USERS,
        runAsGroup=USERS,
        **({"windowsOptions": windows_options(specs)} if asks else {}),
    )


@st.composite
def containers(draw: st.DrawFn, names: list[str], volumes: list[str], *, asks: bool) -> Any:
    made = []
    for name in names:
        container: dict[str, Any] = {"name": name, "image": "app:1"}
        if draw(st.booleans()):
            container["securityContext"] = draw(security_context(st.sampled_from(SPECS), asks=asks))
        if draw(st.booleans()):
            paths = draw(st.lists(st.sampled_from(["/a", "/b", "/run", "/run/x"]), unique=True))
            container["volumeMounts"] = [
                {"name": draw(st.sampled_from(volumes)), "mountPath": path}
                for path in (paths if volumes else [])
            ]
        if draw(st.booleans()):
            variables = st.sampled_from(["HOME", "KRB5CCNAME", "KRB5_CONFIG"])
            container["env"] = [
                {"name": each, "value": "x"} for each in draw(st.lists(variables, unique=True))
            ] or None
        made.append(container)
    return made


@st.composite
def pods(draw: st.DrawFn, *, asks: bool = True) -> dict[str, Any]:
    """Return a pod of a valid shape; without `asks` it names no credential spec."""
    names = draw(st.lists(NAMES, unique=True, min_size=1, max_size=4))
    split = draw(st.integers(0, len(names) - 1))
    volumes = draw(st.lists(NAMES, unique=True, max_size=2))
    spec: dict[str, Any] = {
        "containers": draw(containers(names[split:], volumes, asks=asks)),
        "serviceAccountName": "default",
    }
    if split:
        spec["initContainers"] = draw(containers(names[:split], volumes, asks=asks))
    if volumes or draw(st.booleans()):
        spec["volumes"] = [{"name": name, "emptyDir": {}} for name in volumes]
    context = draw(security_context(st.sampled_from(SPECS), asks=asks))
    if context is not None or draw(st.booleans()):
        spec["securityContext"] = context
    if context is not None and draw(st.booleans()):
        context["fsGroup"] = draw(USERS)
    if draw(st.booleans()):
        spec["os"] = {"name": draw(st.sampled_from(["linux", "windows"]))}
    metadata: dict[str, Any] = {"name": "web"}
    if draw(st.booleans()):
        metadata["annotations"] = draw(st.sampled_from([{}, {"a": "b"}, None]))
    if asks and draw(st.booleans()):
        named = ((context or {}).get("windowsOptions") or {}).get("gmsaCredentialSpecName")
        metadata["annotations"] = {"credspec.dev/gmsa": named or draw(st.sampled_from(SPECS))}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def faults_of(pod: dict[str, Any]) -> list[str]:
    """Return for what the API server would refuse a pod, as far as a patch may cause it."""
    spec = pod["spec"]
    volumes = [volume["name"] for volume in spec.get("volumes") or []]
    faults = [f"volume name {each}" for each in volumes if not LABEL.fullmatch(each)]
    faults += [f"volume name {each}" for each in volumes if len(each) > 63]
    faults += ["volume twice"] if len(volumes) != len(set(volumes)) else []
    contexts = [spec.get("securityContext")]
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(kind) or []:
            mounts = container.get("volumeMounts") or []
            paths = [mount["mountPath"] for mount in mounts]
            faults += ["path twice"] if len(paths) != len(set(paths)) else []
            faults += [f"no volume {m['name']}" for m in mounts if m["name"] not in volumes]
            variables = [entry["name"] for entry in container.get("env") or []]
            faults += ["variable twice"] if len(variables) != len(set(variables)) else []
            contexts.append(container.get("securityContext"))
    if (spec.get("os") or {}).get("name") == "linux":
        faults += [
            "windows options cannot be set for a linux pod"
            for context in contexts
            if "windowsOptions" in (context or {})
        ]
    return faults
