"""Keytab files for services that accept tickets as a gMSA (MIT keytab format 0x0502).

A keytab holds the keys of the current and of the previous password: a ticket made just before a
rollover is presented after it, and one made just after it is presented to whoever read the password
just before.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
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


@dataclass(frozen=True, slots=True)
class KeytabEntry:
    """A key of a principal, ``NAME@REALM`` or ``SERVICE/HOST@REALM``, with its version number."""

    principal: str
    key_version: int
    key: Key = field(repr=False)


def managed_password_keys(
    account: str, realm: str, password: ManagedPassword, key_version: int
) -> dict[int, tuple[Key, ...]]:
    """Return the keys of a managed password by their version numbers, the newest first.

    `account` is the sAMAccountName; `key_version` is msDS-KeyVersionNumber, that of the password in
    force. Within five minutes of a rollover the blob's current password is already the next one,
    and has the next number (MS-ADTS 2.2.19).
    """
    salt = computer_salt(realm, account)
    newest = key_version + password.current_is_next
    found = {newest: derive_keys(password.current, salt)}
    if password.previous is not None and newest > 1:
        found[newest - 1] = derive_keys(password.previous, salt)
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
) -> bytes:
    """Return a keytab file of a gMSA, for its own name and all its service principal names.

    `key_version` is msDS-KeyVersionNumber. Names that are no SPNs by their form are left out.
    """
    names = [n for n in account.service_principal_names if _SERVICE_PRINCIPAL.fullmatch(n)]
    principals = [f"{name}@{realm}" for name in (account.account_name, *names)]
    keys = managed_password_keys(account.account_name, realm, password, key_version)
    return keytab_bytes(keytab_entries(principals, keys), timestamp=int(made.timestamp()))


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
