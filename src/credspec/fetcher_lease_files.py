"""What credentials-fetcher's tree of leases holds: its names, and the metadata of a lease.

``<lease>_metadata.json`` beside a lease's tickets says what they are, and for whom. It is written
as credentials-fetcher writes it, and read as both of its versions do. It holds no secret.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from credspec.errors import InvalidSpecError
from credspec.spec.strict_json import parse_json

LEASE_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""What the id of a lease looks like: 20 hexadecimal digits, or an ECS task's own."""

TICKETS_DIRECTORY: Final = re.compile(r"(?!\.)[^/\x00-\x1f\x7f]{1,64}")
"""What a directory of a lease is called: after the account, or as the caller wants its mount."""

MOST_METADATA_BYTES: Final = 1 << 20

_METADATA: Final = "_metadata.json"
_LIST: Final = "krb_ticket_info"
_MOST_ENTRIES: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketEntry:
    """One ticket of a lease.

    `file` is its path, `account` and `domain` whose it is; `user` is who logged on for it, empty
    for the host itself, and `user_domain` that user's domain, which only we write; `spec_arn` and
    `secret_arn` are where spec and password came from, empty if they came with the request.
    """

    file: str
    account: str
    domain: str
    user: str = ""
    user_domain: str = ""
    distinguished_name: str = ""
    spec_arn: str = ""
    secret_arn: str = ""


_KEYS: Final = {
    "krb_file_path": "file",
    "service_account_name": "account",
    "domain_name": "domain",
    "domainless_user": "user",
    "domainless_domain": "user_domain",
    "distinguished_name": "distinguished_name",
    "credspec_info": "spec_arn",
    "credential_arn": "secret_arn",
}
_ALWAYS: Final = ("krb_file_path", "service_account_name", "domain_name", "domainless_user")


def metadata_name(lease: str) -> str:
    """Return what the metadata of a lease is called, in the lease's directory."""
    return f"{lease}{_METADATA}"


def metadata_text(entries: list[TicketEntry]) -> str:
    """Return the metadata of a lease with these tickets."""
    tickets = [
        {
            key: value
            for key, name in _KEYS.items()
            if (value := getattr(entry, name)) or key in (*_ALWAYS, "credspec_info")
        }
        for entry in entries
    ]
    return json.dumps({_LIST: tickets}, indent=2) + "\n"


def read_metadata(data: bytes) -> list[TicketEntry]:
    """Read the metadata of a lease, of either version or ours.

    Raises:
        InvalidSpecError: `metadata-invalid`.
    """
    try:
        document = parse_json(data.decode("utf-8"))
    except (UnicodeDecodeError, InvalidSpecError):
        raise _invalid("not JSON in UTF-8") from None
    tickets = document.get(_LIST) if isinstance(document, dict) else document
    if not isinstance(tickets, list):
        raise _invalid(f"no list of tickets in {_LIST}")
    if len(tickets) > _MOST_ENTRIES:
        raise _invalid(f"{len(tickets)} tickets")
    return [_entry(ticket, number) for number, ticket in enumerate(tickets)]


def _entry(ticket: Any, number: int) -> TicketEntry:
    if not isinstance(ticket, dict):
        raise _invalid(f"ticket {number} is no object")
    values = {name: ticket.get(key, "") for key, name in _KEYS.items()}
    for name, value in values.items():
        if not isinstance(value, str) or not value.isprintable():
            raise _invalid(f"ticket {number}: {name} is no plain text")
    for key in _ALWAYS[:3]:
        if not values[_KEYS[key]]:
            raise _invalid(f"ticket {number} has no {key}")
    return TicketEntry(**values)


def _invalid(found: str) -> InvalidSpecError:
    return InvalidSpecError.of(
        "metadata-invalid", found, where="metadata", expected="metadata of credentials-fetcher"
    )
