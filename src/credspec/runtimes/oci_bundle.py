"""An OCI bundle's ``config.json``, as far as credential specs need it (OCI spec, config.md).

Standard library only: it runs on the way of every container with a spec.
"""

from __future__ import annotations

import os

from credspec.runtimes import c_json
from credspec.runtimes.shim import ANNOTATION, VARIABLE, ShimError

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself costs milliseconds
    from typing import Any

MOUNT_POINT = "/run/credspec"
# What a container may ask for besides: annotation and, where there are none, variable.
OWNER = ("credspec.dev/owner", "CREDSPEC_OWNER")
MODE = ("credspec.dev/mode", "CREDSPEC_MODE")
KEYTAB = ("credspec.dev/keytab", "CREDSPEC_KEYTAB")
OPTIONS = (OWNER, MODE, KEYTAB)
_MAX_SPEC_CHARACTERS = 128 * 1024
_MAX_ID = 2**32 - 2
_MANAGER = "io.container.manager"
# How the CRI's implementations mark the container that only holds a pod's namespaces.
_CONTAINER_TYPES = ("io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType")


def read_config(bundle: str) -> dict[str, Any] | None:
    """Return a bundle's configuration; None if it is none, which the real runtime words best."""
    try:
        with open(f"{bundle}/config.json", "rb") as file:
            config = c_json.loads(file.read())
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
        file.write(c_json.dumps(config))
    os.rename(temporary, path)


class Wish:
    """What a container asks for: a spec, and whose the files are to be and of what kind."""

    def __init__(self, spec: str, uid: int, gid: int, mode: int, *, keytab: bool) -> None:
        self.spec = spec
        self.uid = uid
        self.gid = gid
        self.mode = mode
        self.keytab = keytab

    @property
    def directory_mode(self) -> int:
        """The mode of the directory: whoever may read the files may enter it."""
        return 0o700 | (self.mode & 0o044) | ((self.mode & 0o044) >> 2)


def take_wish(config: dict[str, Any], *, is_users: bool = False) -> Wish | None:
    """Return what a container asks for, None if it is no credential spec.

    Carriers of the spec are the annotation, OCI ``windows.credentialSpec`` (the document itself)
    and, for engines without annotations, the environment variable. Our variables are taken out, so
    that the container does not see them. Options come with the spec: as annotations if that is not
    a variable. Numbers of users and groups are the agent's: with `is_users`, this process is in a
    user namespace that the agent is not in.

    Raises:
        ShimError: a wish that cannot be granted; two carriers that disagree.
    """
    try:
        return _wish(config, is_users=is_users)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ShimError(
            "config.json: not as the OCI runtime specification has it [bundle-malformed]"
        ) from None


def _wish(config: dict[str, Any], *, is_users: bool) -> Wish | None:
    taken = _take_variables(config)
    variable = taken.get(VARIABLE)
    annotations = config.get("annotations") or {}
    if any(annotations.get(name) == "sandbox" for name in _CONTAINER_TYPES):
        return None  # it has the annotations of its pod, and no use for tickets
    document = (config.get("windows") or {}).get("credentialSpec")
    found = [str(annotations[ANNOTATION])] if annotations.get(ANNOTATION) else []
    if document:
        found.append(
            "raw://" + (document if isinstance(document, str) else c_json.dumps(document).decode())
        )
    options = annotations
    # Podman takes annotations from images too.
    doubtful = f"annotation {ANNOTATION}" if _is_podmans(config) else ""
    if not found:
        options = {annotation: taken.get(name) for annotation, name in OPTIONS}
        doubtful = f"variable {VARIABLE}"
    if (found or variable) and doubtful and not _is_confirmed(config):
        raise ShimError(
            f"credential spec: the {doubtful} may come from the image, which must not choose its "
            f"identity; confirm it with --tmpfs {MOUNT_POINT}, or with Docker use the gateway "
            "[spec-carrier-unconfirmed]"
        )
    if variable:
        found.append(variable)
    if not found:
        return None
    if len(set(found)) > 1:
        shown = " and ".join(repr(spec[:80]) for spec in found)
        raise ShimError(
            f"credential spec: {shown} in one container; expected one [spec-carriers-disagree]"
        )
    spec = found[0]
    if len(spec) > _MAX_SPEC_CHARACTERS:
        raise ShimError(
            f"credential spec: {len(spec)} characters; expected at most 64 KiB [spec-too-large]"
        )
    uid, gid = _owner(config, options.get(OWNER[0]), is_users=is_users)
    keytab = _flag(options.get(KEYTAB[0]))
    return Wish(spec, uid, gid, file_mode(options.get(MODE[0])), keytab=keytab)


def _take_variables(config: dict[str, Any]) -> dict[str, str]:
    process = config.get("process") or {}
    names = {VARIABLE, *(variable for _, variable in OPTIONS)}
    kept = []
    taken = {}
    for entry in process.get("env") or []:
        name, _, value = entry.partition("=")
        if name in names:
            taken[name] = value
        else:
            kept.append(entry)
    if taken:
        process["env"] = kept
    return taken


def _is_podmans(config: dict[str, Any]) -> bool:
    mounts = config.get("mounts") or []
    return (config.get("annotations") or {}).get(_MANAGER) == "libpod" or any(
        mount.get("destination") == "/run/.containerenv" for mount in mounts
    )


def _is_confirmed(config: dict[str, Any]) -> bool:
    """Return whether whoever starts the container says so: an image cannot ask for a tmpfs."""
    return any(
        mount.get("type") == "tmpfs" and mount.get("destination", "").rstrip("/") == MOUNT_POINT
        for mount in config.get("mounts") or []
    )


def _owner(config: dict[str, Any], text: str | None, *, is_users: bool) -> tuple[int, int]:
    user = (config.get("process") or {}).get("user") or {}
    uid, gid = int(user.get("uid", 0)), int(user.get("gid", 0))
    if text:
        parts = str(text).split(":")
        if not 1 <= len(parts) <= 2 or not all(_is_id(part) for part in parts):  # noqa: PLR2004
            raise _not_understood(OWNER[0], text, "UID or UID:GID, numbers in the container")
        uid, gid = int(parts[0]), int(parts[1]) if len(parts) > 1 else gid
    linux = config.get("linux") or {}
    return (
        _mapped(uid, linux.get("uidMappings"), "uid", is_users=is_users),
        _mapped(gid, linux.get("gidMappings"), "gid", is_users=is_users),
    )


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) <= _MAX_ID


def file_mode(text: str | None) -> int:
    """Return the permission bits that an octal text names; 0600 if there is none.

    Raises:
        ShimError: not octal, not readable by the owner, or executable.
    """
    if not text:
        return 0o600
    digits = str(text)
    if len(digits) in {3, 4} and set(digits) <= set("01234567"):
        mode = int(digits, 8)
        if mode & 0o400 and not mode & ~0o666:
            return mode
    raise _not_understood(MODE[0], text, "an octal mode such as 0640, which the owner can read")


def _flag(text: str | None) -> bool:
    if not text or str(text).lower() in {"false", "0"}:
        return False
    if str(text).lower() in {"true", "1"}:
        return True
    raise _not_understood(KEYTAB[0], text, "true or false")


def _not_understood(name: str, found: object, expected: str) -> ShimError:
    return ShimError(f"{name}: {str(found)[:80]!r}; expected {expected} [option-invalid]")


def _mapped(
    number: int, mappings: list[dict[str, int]] | None, kind: str, *, is_users: bool
) -> int:
    """Return the host's number of a user or group, through the namespaces in between."""
    ranges = [(m["containerID"], m["hostID"], m["size"]) for m in mappings or ()]
    inside = _translated(number, ranges) if ranges else number
    outside = inside
    if is_users and inside is not None:
        outside = _translated(inside, own_id_ranges(kind))
    if outside is None:
        raise ShimError(
            f"container user: {kind} {number} is not mapped to the host; add it to the {kind} "
            "mappings of the container's user namespace [container-user-unmapped]"
        )
    return outside


def _translated(number: int, ranges: list[tuple[int, int, int]]) -> int | None:
    for inside, outside, size in ranges:
        if 0 <= number - inside < size:
            return outside + number - inside
    return None


def own_id_ranges(kind: str) -> list[tuple[int, int, int]]:
    """Return how this process's uids or gids are mapped: inside, outside, size.

    `kind` is ``uid`` or ``gid``; see user_namespaces(7).
    """
    with open(f"/proc/self/{kind}_map", "rb") as file:
        fields = [int(field) for field in file.read().split()]
    return list(zip(fields[::3], fields[1::3], fields[2::3], strict=True))


def add_tickets(config: dict[str, Any], directory: str, environment: dict[str, str]) -> None:
    """Add the lease's mount and environment to a container's configuration.

    ``KRB5CCNAME`` and ``KRB5_KTNAME`` are ours, a ``KRB5_CONFIG`` that the image or the user set
    stays.
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
    added = {k: v for k, v in environment.items() if k != "KRB5_CONFIG" or k not in names}
    process["env"] = [e for e in present if e.partition("=")[0] not in added] + [
        f"{name}={value}" for name, value in added.items()
    ]
