"""Create requests that have the variables of a container with tickets, but no credential spec."""

from __future__ import annotations

from collections.abc import Iterator

from credspec.errors import UsageError
from credspec.runtimes.docker_gateway.json_object import JsonObject
from credspec.runtimes.docker_gateway.settings_json import read_settings
from credspec.runtimes.lease_paths import is_above_tickets, variable_at_tickets
from credspec.runtimes.shim import ANNOTATION, VARIABLE


def check_spec_present(body: JsonObject, host_configs: list[JsonObject]) -> None:
    """Refuse a request whose variables name tickets that there will not be.

    Such a container starts and finds no ticket: most likely a tool copied another's settings and
    lost the spec. Where something is mounted there, or the shim may find a spec, it is not refused.

    Raises:
        UsageError: `spec-missing`.
    """
    config = host_configs[-1] if host_configs else JsonObject(())
    try:
        settings = read_settings(body, config)
        targets = list(_mount_targets(body, config))
    except (ValueError, AttributeError, TypeError):
        return  # the daemon words this best
    name = variable_at_tickets(settings.environment)
    specs = [e for e in settings.environment if e.startswith(f"{VARIABLE}=") and e[9:]]
    if name is None or specs or settings.annotations.get(ANNOTATION):
        return
    if any(map(is_above_tickets, targets)):
        return
    raise UsageError.of(
        "spec-missing",
        f"the variable {name} names tickets, but the container has no credential spec",
        expected="--security-opt credentialspec=... with it",
        remedy=f"name the spec, or leave {name} out",
    )


def _mount_targets(body: JsonObject, config: JsonObject) -> Iterator[str]:
    """Yield the paths in the container at which something is mounted."""
    for key, parent in (("Volumes", body), ("Tmpfs", config)):
        for found in parent.find(key):
            yield from found.value or ()
    for found in config.find("Binds"):
        for bind in found.value or ():
            yield bind.split(":")[1] if ":" in bind else bind
    for found in config.find("Mounts"):
        for mount in found.value or ():
            yield from (str(text) for name, text in mount.items() if name.lower() == "target")
    # Another container's, which may be those tickets.
    for found in config.find("VolumesFrom"):
        yield from ["/run"] if found.value else ()
