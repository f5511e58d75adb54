"""The forest's KDS root keys, from which managed passwords are made (MS-GKDI, MS-ADSC 2.143).

Only their existence shows to every logon; since when they are effective shows to administrators.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from credspec.directory.connection import Connection
from credspec.directory.domain import DomainFacts
from credspec.errors import CredspecError

_EPOCH: Final = datetime(1601, 1, 1, tzinfo=UTC)  # of FILETIME, MS-DTYP 2.3.3


@dataclass(frozen=True, slots=True)
class KdsRootKey:
    """A root key; `effective_from` is None if this logon may not see it."""

    effective_from: datetime | None


def read_kds_root_keys(connection: Connection, facts: DomainFacts) -> tuple[KdsRootKey, ...]:
    """Return the root keys that this logon sees; none if even the container does not show."""
    container = (
        "CN=Master Root Keys,CN=Group Key Distribution Service,CN=Services,"
        f"{facts.configuration_naming_context}"
    )
    try:
        found = connection.search(
            container, "(objectClass=msKds-ProvRootKey)", ("msKds-UseStartTime", "cn")
        )
        if not found:
            # The class may be hidden where the entry is not.
            found = [
                entry
                for entry in connection.search(container, "(objectClass=*)", ("cn", "name"))
                if not entry["dn"][0].lower().startswith(b"cn=master root keys,")
            ]
    except CredspecError:
        return ()
    return tuple(KdsRootKey(_moment(entry.get("mskds-usestarttime") or ())) for entry in found)


def _moment(values: object) -> datetime | None:
    if not isinstance(values, list) or not values:
        return None
    try:
        return _EPOCH + timedelta(microseconds=int(values[0]) // 10)
    except (ValueError, OverflowError):
        return None
