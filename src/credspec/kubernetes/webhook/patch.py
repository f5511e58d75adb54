"""From a pod to a JSON patch: the volume, its mounts, the variables, a group that can read.

Pure: neither the cluster nor a spec is looked at. A patched pod gets no further patch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from credspec.contract.names import MOUNT_POINT
from credspec.kubernetes.objects.names import (
    ANNOTATION,
    DRIVER,
    INJECTED,
    SPEC_ATTRIBUTE,
    volume_name,
)
from credspec.kubernetes.webhook.group import group_patch
from credspec.kubernetes.webhook.options import TicketOptions, ticket_options
from credspec.kubernetes.webhook.pod import (
    CONTAINERS,
    LINUX,
    Container,
    containers_of,
    credential_volumes,
    is_for_windows,
    list_in,
    stated_os,
    table_in,
    text_in,
)
from credspec.kubernetes.webhook.refusals import PodInvalidError, quoted
from credspec.kubernetes.webhook.requested import Requested, WindowsOptions, requested_by
from credspec.spec.strict_json import pointer_to

Operation = dict[str, Any]
"""An operation of a JSON patch (RFC 6902)."""

_FIELDS: Final = frozenset({"gmsaCredentialSpecName", "gmsaCredentialSpec"})


class _Tickets(NamedTuple):
    """The name of the volume of each spec; the pod's own volumes, with their spec; variables."""

    volumes: dict[str, str]
    present: dict[str, str]
    variables: dict[str, str]


@dataclass(slots=True)
class Patch:
    """What is changed, and what the pod's author should know."""

    operations: list[Operation] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, path: str, value: Any) -> None:
        """Add a member, or an element of a list."""
        self.operations.append({"op": "add", "path": path, "value": value})

    def remove(self, path: str) -> None:
        """Remove a member."""
        self.operations.append({"op": "remove", "path": path})

    def append(self, table: dict[str, Any], pointer: str, key: str, values: list[Any]) -> None:
        """Append to a list, which may be missing or null."""
        if not values:
            return
        path = pointer_to(pointer, key)
        if table.get(key) is None:
            self.add(path, values)
            return
        for value in values:
            self.add(f"{path}/-", value)


def patch_of_pod(pod: dict[str, Any]) -> Patch:
    """Return what a new pod lacks of what it asks for; nothing if it asks for nothing.

    Raises:
        PodInvalidError: those of `requested_by`; `kubernetes-mount-path-taken`,
            `kubernetes-volume-name-taken`.
        ReviewMalformedError: `kubernetes-pod-malformed`.
    """
    patch = Patch()
    if is_for_windows(pod):
        return patch
    requested, present = requested_by(pod), credential_volumes(pod)
    given = [
        (container, spec)
        for container in containers_of(pod)
        if (spec := _spec_of(container, requested, present)) is not None
    ]
    if not given:
        return patch
    options = ticket_options(pod)
    specs = dict.fromkeys(spec for _, spec in given)
    volumes = _add_volumes(patch, pod, present, specs, options)
    tickets = _Tickets(volumes, present, options.variables)
    for container, spec in given:
        _add_to_container(patch, container, spec, tickets)
    group_patch(patch, pod, [container for container, _ in given], options)
    removed = [each for each in requested.options if stated_os(pod) == LINUX]
    for each in removed:
        _remove_options(patch, pod, each)
    _annotate(patch, pod, requested)
    return patch


def patch_of_debug_containers(pod: dict[str, Any], old: dict[str, Any]) -> Patch:
    """Return what new ephemeral containers of a pod lack to use its tickets.

    A debug container gets the spec of the container whose processes it sees, else that of the pod,
    else the only one that there is.

    Raises:
        PodInvalidError: `kubernetes-mount-path-taken`, `kubernetes-debug-spec`, and those of
            `requested_by`.
        ReviewMalformedError: `kubernetes-pod-malformed`.
    """
    patch = Patch()
    present = credential_volumes(pod)
    volumes = {spec: name for name, spec in present.items() if spec}
    if not volumes or is_for_windows(pod):
        return patch
    tickets = _Tickets(volumes, present, ticket_options(pod).variables)
    known = {each.name for each in containers_of(old, "ephemeralContainers")}
    requested = requested_by(pod, *CONTAINERS, "ephemeralContainers")
    mounted = {each.name: _mounted_spec(each, present) for each in containers_of(pod)}
    for container in containers_of(pod, "ephemeralContainers"):
        if container.name in known:
            continue
        own = requested.of_containers.get(container.pointer)
        if own is not None and own not in volumes:
            raise PodInvalidError.of(
                "kubernetes-debug-spec",
                f"container {quoted(container.name)} asks for the spec {quoted(own)}, of which the "
                "pod has no volume",
                expected="a spec of the pod: a running pod gets no further volumes",
            )
        target = mounted.get(text_in(container.fields, "targetContainerName"))
        only = next(iter(volumes)) if len(volumes) == 1 else None
        spec = next((each for each in (own, target, requested.pod, only) if each in volumes), None)
        if spec is not None:
            _add_to_container(patch, container, spec, tickets)
    return patch


def _spec_of(container: Container, requested: Requested, present: dict[str, str]) -> str | None:
    """Return the spec of a container: its own, or what it mounts already, or the pod's."""
    own = requested.of_containers.get(container.pointer)
    if own is not None or requested.pod is None:
        return own
    # Of a Linux pod that was changed before, what the container named is in its mount only.
    return _mounted_spec(container, present) or requested.pod


def _mounted_spec(container: Container, present: dict[str, str]) -> str | None:
    """Return the spec whose tickets a container has at the usual path."""
    for mount in list_in(container.fields, "volumeMounts"):
        if text_in(mount, "mountPath").rstrip("/") == MOUNT_POINT and not _is_part(mount):
            return present.get(text_in(mount, "name"))
    return None


def _is_part(mount: dict[str, Any]) -> bool:
    return bool(text_in(mount, "subPath") or text_in(mount, "subPathExpr"))


def _add_volumes(
    patch: Patch,
    pod: dict[str, Any],
    present: dict[str, str],
    specs: Iterable[str],
    options: TicketOptions,
) -> dict[str, str]:
    """Return the name of the volume of each spec; those that are missing are added."""
    spec_table = table_in(pod, "spec")
    taken = {text_in(volume, "name") for volume in list_in(spec_table, "volumes")}
    volumes: dict[str, str] = {}
    for name, spec in present.items():
        volumes.setdefault(spec, name)
    added = []
    for spec in specs:
        if spec in volumes:
            continue
        name = volume_name(spec)
        if name in taken:
            raise PodInvalidError.of(
                "kubernetes-volume-name-taken",
                f"the pod has another volume {quoted(name)}",
                where="/spec/volumes",
                expected=f"that name for the tickets of the spec {quoted(spec)}",
                remedy="rename the pod's volume",
            )
        volumes[spec] = name
        attributes = {SPEC_ATTRIBUTE: spec, **options.attributes}
        added.append({"name": name, "csi": {"driver": DRIVER, "volumeAttributes": attributes}})
    patch.append(spec_table, "/spec", "volumes", added)
    return volumes


def _add_to_container(patch: Patch, container: Container, spec: str, tickets: _Tickets) -> None:
    """Add mount and variables."""
    fields, volume, present = container.fields, tickets.volumes[spec], tickets.present
    is_mounted = False
    for mount in list_in(fields, "volumeMounts"):
        path = text_in(mount, "mountPath").rstrip("/")
        is_part = _is_part(mount)
        is_of_spec = present.get(text_in(mount, "name")) == spec
        if is_of_spec and is_part:
            patch.warnings.append(
                f"container {quoted(container.name)} mounts a part of the volume "
                f"{quoted(volume)} by subPath at {path}: the files there are never renewed"
            )
        if path != MOUNT_POINT:
            continue
        if not is_of_spec or is_part:
            raise PodInvalidError.of(
                "kubernetes-mount-path-taken",
                f"container {quoted(container.name)} mounts something else at {MOUNT_POINT}",
                where=f"{container.pointer}/volumeMounts",
                expected=f"the whole volume of the spec {quoted(spec)}",
                remedy="mount it somewhere else",
            )
        is_mounted = True
    mounts = [] if is_mounted else [{"name": volume, "mountPath": MOUNT_POINT}]
    patch.append(fields, container.pointer, "volumeMounts", mounts)
    named = {text_in(entry, "name") for entry in list_in(fields, "env")}
    variables = [
        {"name": name, "value": value}
        for name, value in tickets.variables.items()
        if name not in named
    ]
    patch.append(fields, container.pointer, "env", variables)


def _remove_options(patch: Patch, pod: dict[str, Any], options: WindowsOptions) -> None:
    """Remove what the API server refuses for Linux; other options of Windows stay its to refuse."""
    owner: Any = pod
    for key in options.pointer.split("/")[1:]:
        owner = owner[int(key)] if isinstance(owner, list) else owner[key]
    path = f"{options.pointer}/securityContext/windowsOptions"
    present = owner["securityContext"]["windowsOptions"]
    if present.keys() <= _FIELDS:
        patch.remove(path)
        return
    for name in sorted(_FIELDS & present.keys()):
        patch.remove(f"{path}/{name}")


def _annotate(patch: Patch, pod: dict[str, Any], requested: Requested) -> None:
    """Note that the pod was given tickets, and its spec, of which the field may be removed."""
    metadata = table_in(pod, "metadata")
    wanted = {INJECTED: "true"}
    if requested.pod is not None:
        wanted[ANNOTATION] = requested.pod
    present = metadata.get("annotations")
    if present is None:
        if pod.get("metadata") is None:
            patch.add("/metadata", {"annotations": wanted})
        else:
            patch.add("/metadata/annotations", wanted)
        return
    for name, value in wanted.items():
        if present.get(name) != value:
            patch.add(pointer_to("/metadata/annotations", name), value)
