"""An OCI bundle's ``config.json``, as far as credential specs need it (OCI spec, config.md).

Standard library only: it runs on the path of every container with a spec.
"""

from __future__ import annotations

import posix

from credspec.contract import c_json
from credspec.contract.container_environment import with_lease_variables
from credspec.contract.errors import ShimError
from credspec.contract.names import MOUNT_POINT, NEEDS_RUNTIME

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself costs milliseconds
    from typing import Any

NO_CHECKPOINT = f"{MOUNT_POINT}/.no-checkpoint"
_MEMBERS = ("annotations", "env", "linux", "mounts", "process", "windows")


def read_config(bundle: str) -> dict[str, Any] | None:
    """Return a bundle's configuration; None if there is no file, which the runtime words best.

    Raises:
        ShimError: `bundle-malformed`. A runtime might read it otherwise than this shim, and
            start the container without its identity.
    """
    try:
        with open(f"{bundle}/config.json", "rb") as file:
            data = file.read()
    except OSError:
        return None
    try:
        config = c_json.loads_strictly(data)
    except (ValueError, RecursionError) as error:
        raise malformed(str(error)[:200]) from None
    if not isinstance(config, dict):
        raise malformed("no object")
    check_members(config)
    return config


def check_members(config: dict[str, Any]) -> None:
    """Refuse members in another letter case than the specification's, which some runtimes take.

    Raises:
        ShimError: `bundle-malformed`.
    """
    inner = [config, *(config.get(name) for name in ("process", "windows"))]
    for members in inner:
        for name in members if isinstance(members, dict) else ():
            for right in (*_MEMBERS, "credentialSpec"):
                if name != right and name.casefold() == right.casefold():
                    raise malformed(f"{name[:40]!r}; did you mean {right!r}?")


def malformed(found: str) -> ShimError:
    """Return the error of a configuration that cannot be relied on."""
    return ShimError(
        "bundle-malformed",
        f"config.json: {found}; expected a bundle as the OCI runtime specification has it",
    )


def write_config(bundle: str, config: dict[str, Any]) -> None:
    """Replace a bundle's configuration, atomically and with its mode."""
    path = f"{bundle}/config.json"
    # Not `replace_file`: the shim imports `contract` only, and the engine removes the whole bundle.
    temporary = f"{path}.credspec"
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_NOFOLLOW | posix.O_CLOEXEC
    fd = posix.open(temporary, flags, posix.stat(path).st_mode & 0o777)
    with open(fd, "wb") as file:
        file.write(c_json.dumps(config))
    posix.rename(temporary, path)


def option_of(mount: dict[str, Any]) -> tuple[str, str] | None:
    """Return the ticket option that a tmpfs names, as ``/run/credspec/mode=0440`` does."""
    name, equals, value = str(mount.get("destination", "")).partition("=")
    directory, _, option = name.rpartition("/")
    if mount.get("type") != "tmpfs" or not equals or directory.rstrip("/") != MOUNT_POINT:
        return None
    return option, value


def forbid_checkpoints(config: dict[str, Any]) -> None:
    """Add a mount that makes a checkpoint of the container fail, and changes nothing else.

    CRIU dumps no file system that it does not know, and it does not know ramfs. For Podman's
    hooks, which do not hear of checkpoints.
    """
    config.setdefault("mounts", []).append(
        {
            "destination": NO_CHECKPOINT,
            "type": "ramfs",
            "source": "ramfs",
            "options": ["ro", "nosuid", "nodev", "noexec", "mode=0000"],
        }
    )


def has_tickets(config: dict[str, Any], leases: str) -> bool:
    """Return whether a configuration has the mount of a lease below the directory `leases`."""
    return any(
        str(mount.get("source", "")).startswith(f"{leases}/")
        for mount in config.get("mounts") or []
        if mount.get("destination") == MOUNT_POINT
    )


def add_tickets(config: dict[str, Any], directory: str, environment: dict[str, str]) -> None:
    """Add the lease's mount and environment to a container's configuration.

    Variables that the image or the user set stay. What a Swarm task has so that no other runtime
    starts it goes.
    """
    ((config.get("linux") or {}).get("sysctl") or {}).pop(NEEDS_RUNTIME, None)
    mounts = config.setdefault("mounts", [])
    mounts[:] = [
        m
        for m in mounts
        if m.get("destination", "").rstrip("/") != MOUNT_POINT and option_of(m) is None
    ]
    mounts.append(
        {
            "destination": MOUNT_POINT,
            "type": "bind",
            "source": directory,
            "options": ["bind", "nosuid", "nodev", "noexec", "rw", "rprivate"],
        }
    )
    process = config.setdefault("process", {})
    process["env"] = with_lease_variables(process.get("env") or [], environment)
