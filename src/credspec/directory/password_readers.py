"""Who may read a managed password, for the error that says that this host may not."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Final

from credspec.directory.account_groups import read_own_token
from credspec.directory.connection import Connection, escape
from credspec.directory.domain import DomainFacts
from credspec.errors import CredspecError

_MAX_SHOWN: Final = 30
_MAX_ASKED: Final = 200


def name_of_sid(connection: Connection, facts: DomainFacts, sid: str) -> str:
    r"""Return ``NETBIOS\name`` of a SID of the domain, or the SID itself."""
    try:
        found = connection.search(facts.naming_context, f"(objectSid={sid})", ("sAMAccountName",))
    except CredspecError:
        return sid
    values = found[0].get("samaccountname") if found else None
    return f"{facts.netbios_name}\\{values[0].decode('utf-8', 'replace')}" if values else sid


def read_own_name(connection: Connection, facts: DomainFacts) -> str:
    """Return the sAMAccountName of who is logged on, empty if it is of another domain."""
    try:
        own = [sid for sid in read_own_token(connection) if sid.startswith(f"{facts.sid}-")]
        wanted = "".join(f"(objectSid={escape(sid)})" for sid in sorted(own)[:_MAX_ASKED])
        if not wanted:
            return ""
        found = connection.search(
            facts.naming_context, f"(&(objectClass=user)(|{wanted}))", ("sAMAccountName",)
        )
        values = found[0].get("samaccountname") if len(found) == 1 else None
    except CredspecError:
        return ""
    return values[0].decode("utf-8", "replace") if values else ""


def how_to_allow(account: str, readers: Sequence[str], host: str) -> str:
    """Return the whole commands that add `host` to those who may read, for PowerShell and Samba.

    Set-ADServiceAccount replaces the list, so the present `readers` (names with or without domain,
    or SIDs) are in it. `account` and `host` are sAMAccountNames, the former without ``$``.
    """
    host = host or "HOST$"
    option = "-PrincipalsAllowedToRetrieveManagedPassword"
    if readers and len(readers) <= _MAX_SHOWN:
        names = dict.fromkeys((*(reader.rpartition("\\")[2] for reader in readers), host))
        listed = ",".join(map(_quoted, names))
    else:
        # The list cannot be seen from here, or is long: the directory itself gives it.
        present = f"(Get-ADServiceAccount {_quoted(account)} -Properties *).{option[1:]}"
        listed = f"(@({present}) + {_quoted(host)})"
    name, principal = shlex.quote(f"--name={account}"), shlex.quote(f"--principal={host}")
    return (
        f"Set-ADServiceAccount {_quoted(account)} {option} {listed}; or samba-tool service-account "
        f"group-msa-membership add {name} {principal}"
    )


def _quoted(text: str) -> str:
    """Quote for PowerShell."""
    return "'" + text.replace("'", "''") + "'"
