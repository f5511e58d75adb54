"""The host's own account: its groups, nested ones included, and its key version."""

from __future__ import annotations

from typing import Final

from credspec.directory.account_identity import valid_account_name
from credspec.directory.connection import Connection, Entry, escape
from credspec.directory.domain import DomainFacts
from credspec.directory.security_identifier import sid_to_text

_MAX_GROUPS: Final = 200


def read_account_key_version(connection: Connection, facts: DomainFacts, name: str) -> int | None:
    """Return the kvno of an account of this domain, None if it has none that can be read."""
    entry = find_entry(connection, facts, name, ("objectSid",))
    if entry is None:
        return None
    found = connection.search(
        _dn(entry), "(objectClass=*)", ("msDS-KeyVersionNumber",), subtree=False
    )
    values = found[0].get("msds-keyversionnumber") if found else None
    return int(values[0]) if values else None


def read_token_sids(connection: Connection, facts: DomainFacts, name: str) -> frozenset[str] | None:
    """Return the SIDs of an account and of all its groups, as the domain resolves them now.

    None if there is no such account in this domain. A ticket holds those of the time it was made.
    """
    entry = find_entry(connection, facts, name, ("objectSid",))
    if entry is None:
        return None
    found = connection.search(_dn(entry), "(objectClass=*)", ("tokenGroups",), subtree=False)
    groups = found[0].get("tokengroups", ()) if found else ()
    return frozenset({sid_to_text(value) for value in (*entry["objectsid"], *groups)})


def read_own_token(connection: Connection) -> frozenset[str]:
    """Return the SIDs in the token of this connection, from the rootDSE; empty if it is not there.

    They are those that the logon brought, whatever has changed in the directory since.
    """
    found = connection.search("", "(objectClass=*)", ("tokenGroups",), subtree=False)
    values = found[0].get("tokengroups", ()) if found else ()
    return frozenset(sid_to_text(value) for value in values)


def membership_path(
    connection: Connection, facts: DomainFacts, name: str, group_sid: str
) -> tuple[str, ...]:
    """Return the names from the account to the group: each is a member of the next.

    Empty if memberships that the directory shows do not lead there (the primary group does not
    show).
    """
    start = find_entry(connection, facts, name, ("sAMAccountName", "memberOf", "objectSid"))
    if start is None:
        return ()
    waiting: list[tuple[Entry, tuple[str, ...]]] = [(start, (_name(start),))]
    seen = {_dn(start).lower()}
    while waiting and len(seen) < _MAX_GROUPS:
        entry, path = waiting.pop(0)
        if any(sid_to_text(value) == group_sid for value in entry.get("objectsid", ())):
            return path
        for raw in entry.get("memberof", ()):
            dn = raw.decode("utf-8", "replace")
            if dn.lower() not in seen:
                seen.add(dn.lower())
                wanted = ("sAMAccountName", "memberOf", "objectSid")
                found = connection.search(dn, "(objectClass=*)", wanted, subtree=False)
                waiting += [(group, (*path, _name(group))) for group in found]
    return ()


def find_entry(
    connection: Connection, facts: DomainFacts, name: str, attributes: tuple[str, ...]
) -> Entry | None:
    """Return attributes of an account of this domain, by its sAMAccountName, None if there is none.

    Raises:
        UsageError: `account-name-invalid`.
    """
    bare = valid_account_name(name)
    found = connection.search(
        facts.naming_context,
        f"(sAMAccountName={escape(bare)}{'$' if name.endswith('$') else ''})",
        attributes,
    )
    return found[0] if found else None


def _dn(entry: Entry) -> str:
    return entry["dn"][0].decode()


def _name(entry: Entry) -> str:
    return (entry.get("samaccountname") or [b"?"])[0].decode("utf-8", "replace")
