"""Whether a pod needs a group by which its users can read the tickets, and which.

The files of a volume are root's and the group's that is the pod's ``fsGroup``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from credspec.kubernetes.webhook.options import TicketOptions
from credspec.kubernetes.webhook.pod import Container, number_in, table_in

if TYPE_CHECKING:
    from credspec.kubernetes.webhook.patch import Patch

DEFAULT_GROUP: Final = 65532
"""The group that is given to a pod which names none, as images of programs without root use it."""

_MAX_GROUP: Final = 2**31 - 1


def group_patch(
    patch: Patch, pod: dict[str, Any], containers: Iterable[Container], options: TicketOptions
) -> None:
    """Add an ``fsGroup`` where a container with tickets may run as another user than root.

    Where the pod names the owner of the files itself, only the group that it names is added.

    Raises:
        ReviewMalformedError: `kubernetes-pod-malformed`.
    """
    spec = table_in(pod, "spec")
    context = table_in(spec, "securityContext")
    if number_in(context, "fsGroup") is not None:
        return
    group = options.group if options.is_owned else _needed_group(context, containers)
    if group is None:
        return
    # Kubernetes otherwise changes the owner of every file of every volume at each start.
    wanted: dict[str, Any] = {"fsGroup": group}
    if context.get("fsGroupChangePolicy") is None:
        wanted["fsGroupChangePolicy"] = "OnRootMismatch"
    if spec.get("securityContext") is None:
        patch.add("/spec/securityContext", wanted)
        return
    for name, value in wanted.items():
        patch.add(f"/spec/securityContext/{name}", value)


def _needed_group(context: dict[str, Any], containers: Iterable[Container]) -> int | None:
    pods_user = number_in(context, "runAsUser")
    for container in containers:
        user = number_in(table_in(container.fields, "securityContext"), "runAsUser")
        # Whom the image names is not known here.
        if (pods_user if user is None else user) != 0:
            break
    else:
        return None
    own = number_in(context, "runAsGroup")
    return own if own is not None and 0 < own <= _MAX_GROUP else DEFAULT_GROUP
