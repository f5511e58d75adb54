"""A Swarm service with ``--credential-spec``: refused, since its tasks would be rejected for ever.

dockerd turns it into a security option of each task's container, which it refuses on Linux itself,
without the gateway; the client that created the service learns nothing of that.
"""

from __future__ import annotations

import re
from typing import Final

from credspec.agent.lease_environment import MOUNT_POINT
from credspec.errors import UsageError
from credspec.runtimes.docker_gateway.json_object import JsonObject, NotAnObjectError
from credspec.runtimes.shim import VARIABLE

_TARGET: Final = re.compile(
    r"(?:https?://[^/]*)?(?:/v\d{1,3}\.\d{1,3})?/services/(?:create|[^/?]+/update)(?:\?.*)?"
)
_WAY: Final = ("TaskTemplate", "ContainerSpec", "Privileges", "CredentialSpec")
_PLACEMENT: Final = ("TaskTemplate", "Placement")
_WINDOWS: Final = "windows"  # in a constraint, or a platform


def is_service_target(method: str, target: str) -> bool:
    """Return whether a request creates or updates a service."""
    return method == "POST" and _TARGET.fullmatch(target) is not None


def check_service(data: bytes | bytearray) -> None:
    """Refuse a service with a credential spec.

    Raises:
        UsageError: `docker-service-spec`.
    """
    try:
        service = JsonObject.parse(data.decode("utf-8", "surrogateescape"))
        table, placement = _member(service, _WAY), _member(service, _PLACEMENT)
    except NotAnObjectError:
        return  # dockerd words this best
    if _WINDOWS in str(placement).lower():
        return  # its nodes take credential specs
    # What takes a spec away from a service has only empty members.
    if any(member.value for member in table.members):
        raise UsageError.of(
            "docker-service-spec",
            "a service with --credential-spec, whose tasks dockerd rejects on Linux",
            expected=f"a service with --env {VARIABLE}=file://NAME.json and "
            f"--mount type=tmpfs,dst={MOUNT_POINT}",
            remedy="make credspec the default runtime on each node, which reads the variable: "
            "credspec setup docker --set-as-default",
        )


def _member(table: JsonObject, way: tuple[str, ...]) -> JsonObject:
    """Return an object further down, empty if there is none."""
    for name in way:
        found = table.find(name)
        if not found or found[-1].value is None:
            return JsonObject(())
        table = JsonObject.parse(found[-1].text)
    return table
