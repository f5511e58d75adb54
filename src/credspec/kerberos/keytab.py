"""Keytab files for services that accept tickets as a gMSA (MIT keytab format 0x0502).

A keytab holds the keys of the current and of the previous password: a ticket made just before a
rollover is presented after it, and one made just after it is presented to a reader of
the password of just before.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from credspec.directory.accounts import GroupManagedServiceAccount
from credspec.directory.managed_password import ManagedPassword
from credspec.kerberos.keys import Key, computer_salt, derive_keys

_VERSION: Final = b"\x05\x02"
_NT_PRINCIPAL: Final = 1  # RFC 4120 6.2
_NT_SRV_INST: Final = 2
# SERVICE/HOST[:PORT][/NAME] (MS-ADTS 2.2.21); in a keytab @ ends the name and a backslash escapes.
_SERVICE_PRINCIPAL: Final = re.compile(
    r"[^\x00-\x20\x7f/@\\]{1,64}(?:/[^\x00-\x20\x7f/@\\]{1,255}){1,2}"
)

# As protocols and their programs write them.
_WELL_KNOWN: Final = {
    name.lower(): (name,) for name in ("HTTP", "MSSQLSvc", "DNS", "TERMSRV", "WSMAN", "RPCSS")
}


@dataclass(frozen=True, slots=True)
class KeytabEntry:
    """A key of a principal, ``NAME@REALM`` or ``SERVICE/HOST@REALM``, with its version number."""

    principal: str
    key_version: int
    key: Key = field(repr=False)


def managed_password_keys(
    account: str,
    realm: str,
    password: ManagedPassword,
    key_version: int,
    salts: Mapping[int, str] | None = None,
) -> dict[int, tuple[Key, ...]]:
    """Return the keys of a managed password by their version numbers, the newest first.

    `account` is the sAMAccountName; `key_version` is msDS-KeyVersionNumber, that of the password in
    force. Within five minutes of a rollover the blob's current password is already the next one,
    and has the next number (MS-ADTS 2.2.19). `salts` are those that the KDC has used, by version
    number; others are computed of the name, as the domain does for its next password. The previous
    password has the salt of the one in force if its own is not known.
    """
    computed, known = computer_salt(realm, account), salts or {}
    in_force = known.get(key_version, computed)
    newest = key_version + password.current_is_next
    found = {newest: derive_keys(password.current, known.get(newest, computed))}
    if password.previous is not None and newest > 1:
        found[newest - 1] = derive_keys(password.previous, known.get(newest - 1, in_force))
    return found


def keytab_entries(
    principals: Iterable[str], keys: dict[int, tuple[Key, ...]]
) -> tuple[KeytabEntry, ...]:
    """Return an entry for each principal and key, as an account's names share its keys."""
    return tuple(
        KeytabEntry(principal, version, key)
        for principal in principals
        for version, of_version in keys.items()
        for key in of_version
    )


def account_keytab(
    account: GroupManagedServiceAccount,
    realm: str,
    password: ManagedPassword,
    key_version: int,
    *,
    made: datetime,
    salts: Mapping[int, str] | None = None,
) -> bytes:
    """Return a keytab file of a gMSA, for its own name and all its service principal names.

    `key_version` is msDS-KeyVersionNumber, `salts` are as with `managed_password_keys`. Names that
    are no SPNs by their form are left out; the others stand there as they are registered, and as
    programs spell them.
    """
    names = [n for n in account.service_principal_names if _SERVICE_PRINCIPAL.fullmatch(n)]
    spelled = dict.fromkeys(s for name in names for s in service_name_spellings(name))
    # What is registered stands first.
    principals = [f"{n}@{realm}" for n in dict.fromkeys((account.account_name, *names, *spelled))]
    keys = managed_password_keys(account.account_name, realm, password, key_version, salts)
    return keytab_bytes(keytab_entries(principals, keys), timestamp=int(made.timestamp()))


def service_name_spellings(name: str) -> tuple[str, ...]:
    """Return the spellings of a service principal name that programs use, as given first.

    The directory compares without case, keytabs with it. Clients ask for hosts in lower case, and
    for the class of the service as its protocol has it: ``HTTP`` (RFC 4559), else usually lower.
    """
    kind, _, rest = name.partition("/")
    kinds = (kind, kind.lower(), *_WELL_KNOWN.get(kind.lower(), ()))
    return tuple(dict.fromkeys(f"{k}/{r}" for r in (rest, rest.lower()) for k in kinds))


def joined_keytabs(keytabs: Iterable[bytes]) -> bytes:
    """Return one keytab file with the entries of several."""
    return _VERSION + b"".join(keytab.removeprefix(_VERSION) for keytab in keytabs)


def keytab_bytes(entries: Iterable[KeytabEntry], *, timestamp: int = 0) -> bytes:
    """Return a keytab file; `timestamp` is written into each entry, in seconds since 1970."""
    return _VERSION + b"".join(_entry(entry, timestamp) for entry in entries)


def _entry(entry: KeytabEntry, timestamp: int) -> bytes:
    name, _, realm = entry.principal.rpartition("@")
    components = name.split("/")
    kind = _NT_PRINCIPAL if len(components) == 1 else _NT_SRV_INST
    content = struct.pack(">H", len(components))
    content += b"".join(_counted(part.encode()) for part in (realm, *components))
    # The first version number has one byte, which the last one overrides.
    content += struct.pack(">IIB", kind, timestamp, entry.key_version & 0xFF)
    content += struct.pack(">H", entry.key.enctype) + _counted(entry.key.value)
    content += struct.pack(">I", entry.key_version)
    return struct.pack(">i", len(content)) + content


def _counted(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data
