"""Settings of a container that are of use only with tickets: variables and mounts of their paths.

A container that has them and no credential spec would start, and find no ticket. Standard library
only: it runs on the path of every container with a spec.
"""

from __future__ import annotations

from credspec.contract.names import MOUNT_POINT

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself costs milliseconds
    from collections.abc import Iterable

_PREFIX = "KRB5"  # of MIT Kerberos' variables


def variable_at_tickets(environment: Iterable[str]) -> str | None:
    """Return the name of a variable of Kerberos that names a file among the tickets, or None.

    A value may have the type of a credential cache or keytab before it, or name several files.
    """
    for entry in environment:
        name, _, value = entry.partition("=")
        if name.startswith(_PREFIX) and any(map(is_at_tickets, value.split(":"))):
            return name
    return None


def normal_path(path: str) -> str:
    """Return a path as `posixpath.normpath` does, whose module imports `os`."""
    head = path[: len(path) - len(path.lstrip("/"))]
    head = head if len(head) <= 2 else "/"  # noqa: PLR2004 - POSIX: two mean something of their own
    parts: list[str] = []
    for part in path.split("/"):
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part not in {"", "."} and (part != ".." or not head):
            parts.append(part)
    return head + "/".join(parts) or "."


def is_at_tickets(path: str) -> bool:
    """Return whether a path is that of the tickets' directory, or below it."""
    if not path.startswith("/"):
        return False
    # Two slashes at the start stay as they are.
    normal = "/" + normal_path(path).lstrip("/")
    normal = normal.removeprefix("/var") if normal.startswith("/var/run/") else normal
    return normal == MOUNT_POINT or normal.startswith(f"{MOUNT_POINT}/")


def is_above_tickets(path: str) -> bool:
    """Return whether a mount at a path provides what is at the tickets' directory."""
    normal = "/" + normal_path(path).lstrip("/")
    return normal != "/" and f"{MOUNT_POINT}/".startswith(f"{normal}/")
