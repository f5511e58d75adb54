"""Names of services as containers ask for them, and patterns of such names: their form.

``CLASS/HOST[:PORT][@REALM]``; PORT may be the name of an instance, as SQL Server has it. Standard
library only: it runs on the path of every container that asks for tickets of services.
"""

from __future__ import annotations

import re

from credspec.contract.errors import ShimError

TGT, SERVICES, BROKER = "tgt", "services", "broker"
TICKETS = (TGT, SERVICES, BROKER)
"""What a container may hold: a ticket-granting ticket, tickets of named services only, or a decoy
that only the agent understands."""

MOST_SERVICES = 64
"""How many services one container may name."""

MOST_CHARACTERS = 4096
"""How long their list may be."""

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_CLASS = r"[A-Za-z][A-Za-z0-9_.-]{0,63}"
_PORT = r"[A-Za-z0-9_$-]{1,32}"
_REALM = rf"{_LABEL}(?:\.{_LABEL})*"
# Compiled when they are used, and kept by re: that takes a millisecond each.
_NAME = rf"({_CLASS})/({_LABEL}(?:\.{_LABEL})*)(?::({_PORT}))?(?:@({_REALM}))?"
_ANY = rf"(?:\*|{_LABEL})"
_PATTERN = rf"({_CLASS})/({_ANY}(?:\.{_ANY})*)(?::(\*|{_PORT}))?(?:@({_REALM}))?"
_FORM = "CLASS/HOST[:PORT][@REALM], never krbtgt or kadmin"
_PATTERN_FORM = ", with * as a whole label of HOST or as PORT"
_MOST_NAME = 255
# Tickets of these are worth as much as the account itself.
_NEVER = frozenset({"krbtgt", "kadmin"})

Parts = tuple[str, str, "str | None", "str | None"]
"""Class, host, port and realm as they were written; None for what is not there."""


def parts_of(text: str, *, is_pattern: bool = False) -> Parts | None:
    """Return the parts of a service's name, None if a text is no such name.

    With `is_pattern`, labels of the host and the port may be ``*``.
    """
    if len(text) > _MOST_NAME:
        return None
    match = re.fullmatch(_PATTERN if is_pattern else _NAME, text)
    if match is None or match[1].lower() in _NEVER:
        return None
    return match[1], match[2], match[3], match[4]


def listed_services(text: str, where: str, *, is_pattern: bool = False) -> tuple[str, ...]:
    """Return the services of a list ``NAME,NAME``, each once.

    Raises:
        ShimError: `option-invalid`; `where` is what the list is called there.
    """
    names = [name.strip() for name in text.split(",")] if text.strip() else []
    if len(text) > MOST_CHARACTERS or len(names) > MOST_SERVICES:
        raise ShimError(
            "option-invalid",
            f"{where}: {len(names)} services in {len(text)} characters; expected at most "
            f"{MOST_SERVICES} in {MOST_CHARACTERS}",
        )
    for name in names:
        if parts_of(name, is_pattern=is_pattern) is None:
            expected = _FORM + (_PATTERN_FORM if is_pattern else ", no *")
            raise ShimError("option-invalid", f"{where}: {name[:80]!a}; expected {expected}")
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(name.lower(), name)
    return tuple(found.values())


def check_agreement(tickets: str, services: tuple[str, ...], *, keytab: bool) -> None:
    """Refuse options of tickets that contradict each other.

    Raises:
        ShimError: `tickets-options`.
    """
    if tickets == TGT and services:
        found = f"services, but tickets={TGT}; a container with a TGT has the tickets of all: say "
        raise ShimError("tickets-options", f"options: {found}tickets={SERVICES} or {BROKER}")
    if tickets == SERVICES and not services:
        raise ShimError(
            "tickets-options",
            f"options: tickets={SERVICES} without services; name those that the container needs, "
            "such as services=HTTP/intranet.contoso.com",
        )
    if tickets != TGT and keytab:
        raise ShimError(
            "tickets-options",
            f"options: tickets={tickets} and a keytab; who has an account's keys can get every "
            f"ticket: leave the keytab out, or say tickets={TGT}",
        )
