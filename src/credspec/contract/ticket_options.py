"""The options of a container's tickets: owner, mode, a keytab, which tickets, of which services.

Standard library only: it runs on the path of every container with a spec.
"""

from __future__ import annotations

from credspec.contract.errors import ShimError
from credspec.contract.names import ANNOTATION, VARIABLE
from credspec.contract.selinux_label import mount_label

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself costs milliseconds
    from typing import Any

# Annotation and variable of each option; the name of both is what stands behind the slash.
OWNER = ("credspec.dev/owner", "CREDSPEC_OWNER")
MODE = ("credspec.dev/mode", "CREDSPEC_MODE")
KEYTAB = ("credspec.dev/keytab", "CREDSPEC_KEYTAB")
TICKETS = ("credspec.dev/tickets", "CREDSPEC_TICKETS")
SERVICES = ("credspec.dev/services", "CREDSPEC_SERVICES")
OPTIONS = (OWNER, MODE, KEYTAB, TICKETS, SERVICES)
ANNOTATIONS = (ANNOTATION, *(annotation for annotation, _ in OPTIONS))
"""All annotations that mean something here."""
VARIABLES = (VARIABLE, *(variable for _, variable in OPTIONS))
"""All variables that mean something here."""
REQUESTED = "credspec.dev/requested"
"""The Docker gateway's note of what its client asked for, which means nothing to a container."""
_MAX_ID = 2**32 - 2


def short_name(annotation: str) -> str:
    """Return an option's name without the domain."""
    return annotation.rpartition("/")[2]


class TicketRequest:
    """What a container asks for: a spec, and whose the files are to be and of what kind.

    `label` is what SELinux calls the container's mounts, empty without SELinux. `tickets` is what
    is in the files, one of `service_names.TICKETS`, and `services` are the names or patterns of the
    services that the container needs.
    """

    def __init__(
        self,
        spec: str,
        uid: int,
        gid: int,
        mode: int,
        *,
        keytab: bool,
        label: str = "",
        tickets: str = "tgt",
        services: tuple[str, ...] = (),
    ) -> None:
        self.spec = spec
        self.uid = uid
        self.gid = gid
        self.mode = mode
        self.keytab = keytab
        self.label = label
        self.tickets = tickets
        self.services = services

    @property
    def directory_mode(self) -> int:
        """The mode of the directory: readers of the files may enter it."""
        return 0o700 | (self.mode & 0o044) | ((self.mode & 0o044) >> 2)


def ticket_request_of(
    config: dict[str, Any], spec: str, options: dict[str, str], *, is_users: bool
) -> TicketRequest:
    """Return what a container is to have, given the spec and the options that count.

    `options` are by annotation. Numbers of users and groups become the agent's: with `is_users`,
    this process is in a user namespace that the agent is not in.

    Raises:
        ShimError: `option-invalid`, `tickets-options`, `container-user-unmapped`, `selinux-label`.
    """
    uid, gid = _owner(config, options.get(OWNER[0]), is_users=is_users)
    keytab = _flag(options.get(KEYTAB[0]))
    mode = file_mode(options.get(MODE[0]))
    tickets, services = kind_of_tickets(
        options.get(TICKETS[0]), options.get(SERVICES[0]), keytab=keytab
    )
    return TicketRequest(
        *(spec, uid, gid, mode),
        keytab=keytab,
        label=mount_label(config),
        tickets=tickets,
        services=services,
    )


def kind_of_tickets(
    tickets: str | None, services: str | None, *, keytab: bool
) -> tuple[str, tuple[str, ...]]:
    """Return which tickets two options ask for, and of which services.

    Raises:
        ShimError: `option-invalid`, `tickets-options`.
    """
    if not tickets and not services:
        return "tgt", ()
    from credspec.contract import service_names as names

    kind = str(tickets or names.TGT).lower()
    if kind not in names.TICKETS:
        raise _not_understood(TICKETS[0], tickets, ", ".join(names.TICKETS))
    listed = names.listed_services(
        str(services or ""), SERVICES[0], is_pattern=kind == names.BROKER
    )
    names.check_agreement(kind, listed, keytab=keytab)
    return kind, listed


def check_options(options: dict[str, str]) -> None:
    """Refuse options, by annotation, of which a value is not understood.

    Raises:
        ShimError: `option-invalid`, `tickets-options`.
    """
    _owner({}, options.get(OWNER[0]), is_users=False)
    keytab = _flag(options.get(KEYTAB[0]))
    file_mode(options.get(MODE[0]))
    kind_of_tickets(options.get(TICKETS[0]), options.get(SERVICES[0]), keytab=keytab)


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
    return ShimError("option-invalid", f"{name}: {str(found)[:80]!r}; expected {expected}")


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
            "container-user-unmapped",
            f"container user: {kind} {number} is not mapped to the host; add it to the {kind} "
            "mappings of the container's user namespace",
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
