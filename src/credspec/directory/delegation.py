"""Which services an account may reach in the names of its callers (MS-SFU, MS-ADTS 2.2.16)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from credspec.directory.account_groups import find_entry, read_token_sids
from credspec.directory.connection import Connection
from credspec.directory.domain import DomainFacts

_TRUSTED_FOR_DELEGATION: Final = 0x80000
_NOT_DELEGATED: Final = 0x100000
_TRUSTED_TO_AUTHENTICATE: Final = 0x1000000
_CONTROL: Final = "userAccountControl"
_SERVICES: Final = "msDS-AllowedToDelegateTo"
_PROTECTED_USERS: Final = 525  # MS-DTYP 2.4.2.4


@dataclass(frozen=True, slots=True)
class Delegation:
    """What an account may delegate, and whether it may be delegated itself.

    `services` are those of constrained delegation, `any_service` is unconstrained delegation,
    `any_protocol` protocol transition: for callers that did not log on with Kerberos.
    `is_sensitive` and `is_protected` (Protected Users) forbid that its own ticket is forwarded.
    """

    services: tuple[str, ...]
    any_service: bool
    any_protocol: bool
    is_sensitive: bool
    is_protected: bool


def read_delegation(connection: Connection, facts: DomainFacts, name: str) -> Delegation | None:
    """Return what the directory says of an account, by its sAMAccountName; None if it is not there.

    Who may delegate to a service by the service's own word (resource-based) is not in here.

    Raises:
        CredspecError: as `Connection.search`.
    """
    entry = find_entry(connection, facts, name, (_CONTROL, _SERVICES))
    if entry is None:
        return None
    try:
        control = int((entry.get(_CONTROL.lower()) or [b"0"])[0])
    except ValueError:
        control = 0
    groups = read_token_sids(connection, facts, name) or frozenset()
    return Delegation(
        services=tuple(
            value.decode("utf-8", "replace") for value in entry.get(_SERVICES.lower(), ())
        ),
        any_service=bool(control & _TRUSTED_FOR_DELEGATION),
        any_protocol=bool(control & _TRUSTED_TO_AUTHENTICATE),
        is_sensitive=bool(control & _NOT_DELEGATED),
        is_protected=f"{facts.sid}-{_PROTECTED_USERS}" in groups,
    )
