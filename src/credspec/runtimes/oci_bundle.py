"""An OCI bundle's ``config.json``, as far as credential specs need it (OCI spec, config.md).

Standard library only: it runs on the way of every container with a spec.
"""

from __future__ import annotations

import json
import os

from credspec.runtimes.shim import ANNOTATION, VARIABLE, ShimError

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself costs milliseconds
    from typing import Any

MOUNT_POINT = "/run/credspec"
_MAX_SPEC_CHARACTERS = 128 * 1024


def read_config(bundle: str) -> dict[str, Any] | None:
    """Return a bundle's configuration; None if it is none, which the real runtime words best."""
    try:
        with open(f"{bundle}/config.json", "rb") as file:
            config = json.load(file)
    except (OSError, ValueError, RecursionError):
        return None
    return config if isinstance(config, dict) else None


def write_config(bundle: str, config: dict[str, Any]) -> None:
    """Replace a bundle's configuration, atomically and with its mode."""
    path = f"{bundle}/config.json"
    temporary = f"{path}.credspec"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    fd = os.open(temporary, flags, os.stat(path).st_mode & 0o777)
    with os.fdopen(fd, "wb") as file:
        file.write(json.dumps(config).encode())
    os.rename(temporary, path)


def take_spec(config: dict[str, Any]) -> str | None:
    """Return the reference to a container's credential spec, or None; the first carrier wins.

    Carriers are the annotation, OCI ``windows.credentialSpec`` (the document itself) and the
    environment variable, which is taken out, so that the container does not see it.

    Raises:
        ShimError: the spec is longer than any can be.
    """
    process = config.get("process") or {}
    kept = []
    from_environment = None
    for entry in process.get("env") or []:
        name, _, value = entry.partition("=")
        if name == VARIABLE:
            from_environment = value
        else:
            kept.append(entry)
    if from_environment is not None:
        process["env"] = kept
    spec = _first_carrier(config, from_environment)
    if spec is not None and len(spec) > _MAX_SPEC_CHARACTERS:
        raise ShimError(
            f"credential spec: {len(spec)} characters; expected at most 64 KiB [spec-too-large]"
        )
    return spec


def _first_carrier(config: dict[str, Any], from_environment: str | None) -> str | None:
    annotated = (config.get("annotations") or {}).get(ANNOTATION)
    if annotated:
        return str(annotated)
    document = (config.get("windows") or {}).get("credentialSpec")
    if document:
        return "raw://" + (document if isinstance(document, str) else json.dumps(document))
    return from_environment or None


def host_ids(config: dict[str, Any]) -> tuple[int, int]:
    """Return the host's uid and gid of the container's process, through its user namespace.

    Raises:
        ShimError: the user is not mapped to the host.
    """
    user = (config.get("process") or {}).get("user") or {}
    linux = config.get("linux") or {}
    return (
        _mapped(int(user.get("uid", 0)), linux.get("uidMappings"), "uid"),
        _mapped(int(user.get("gid", 0)), linux.get("gidMappings"), "gid"),
    )


def _mapped(number: int, mappings: list[dict[str, int]] | None, kind: str) -> int:
    if not mappings:
        return number
    for mapping in mappings:
        offset = number - mapping["containerID"]
        if 0 <= offset < mapping["size"]:
            return mapping["hostID"] + offset
    raise ShimError(
        f"container user: {kind} {number} is not mapped to the host; "
        f"add it to the {kind} mappings of the container's user namespace [container-user-unmapped]"
    )


def add_tickets(config: dict[str, Any], directory: str, environment: dict[str, str]) -> None:
    """Add the lease's mount and environment to a container's configuration.

    ``KRB5CCNAME`` is ours, a ``KRB5_CONFIG`` that the image or the user set stays.
    """
    mounts = config.setdefault("mounts", [])
    mounts[:] = [m for m in mounts if m.get("destination", "").rstrip("/") != MOUNT_POINT]
    mounts.append(
        {
            "destination": MOUNT_POINT,
            "type": "bind",
            "source": directory,
            "options": ["bind", "nosuid", "nodev", "noexec", "rw", "rprivate"],
        }
    )
    process = config.setdefault("process", {})
    present = process.get("env") or []
    names = {entry.partition("=")[0] for entry in present}
    added = {k: v for k, v in environment.items() if k == "KRB5CCNAME" or k not in names}
    process["env"] = [e for e in present if e.partition("=")[0] not in added] + [
        f"{name}={value}" for name, value in added.items()
    ]
