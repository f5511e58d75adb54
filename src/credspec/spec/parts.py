"""The parts of a parsed document that may be wrong in any way: other types count as absent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

DOMAIN: Final = "/DomainJoinConfig"
DIRECTORY: Final = "/ActiveDirectoryConfig"
ACCOUNTS: Final = f"{DIRECTORY}/GroupManagedServiceAccounts"
HOST: Final = f"{DIRECTORY}/HostAccountConfig"
_MAX_COMPARED: Final = 40
_MAX_NAMES: Final = 50


def domain_of(spec: dict[str, Any]) -> dict[str, Any]:
    """Return DomainJoinConfig, empty if it is none."""
    found = spec.get("DomainJoinConfig")
    return found if isinstance(found, dict) else {}


def directory_of(spec: dict[str, Any]) -> dict[str, Any]:
    """Return ActiveDirectoryConfig, empty if it is none."""
    found = spec.get("ActiveDirectoryConfig")
    return found if isinstance(found, dict) else {}


def accounts_of(spec: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    """Return the entries for accounts that are objects, with their places."""
    found = directory_of(spec).get("GroupManagedServiceAccounts")
    entries = found if isinstance(found, list) else []
    return [(index, entry) for index, entry in enumerate(entries) if isinstance(entry, dict)]


def host_of(spec: dict[str, Any]) -> dict[str, Any] | None:
    """Return HostAccountConfig, None if there is none."""
    found = directory_of(spec).get("HostAccountConfig")
    return found if isinstance(found, dict) else None


def text_of(table: dict[str, Any], key: str) -> str:
    """Return a member that is a string, else an empty one."""
    found = table.get(key)
    return found if isinstance(found, str) else ""


def plain(name: str) -> str:
    """Return a name as it is compared: without ``$``, in lower case."""
    return name.rstrip("$").casefold()


def twins_missing(spec: dict[str, Any]) -> list[tuple[int, dict[str, Any], str]]:
    """Return entries of the default account whose twin is missing: place, entry, wanted scope.

    Additional accounts are written once by the PowerShell module, so theirs are not missed.
    """
    domain = domain_of(spec)
    dns, netbios = text_of(domain, "DnsName"), text_of(domain, "NetBiosName")
    entries = accounts_of(spec)
    if not dns or not netbios or dns.casefold() == netbios.casefold() or not entries:
        return []
    default = plain(text_of(domain, "MachineAccountName") or text_of(entries[0][1], "Name"))
    mine = [(i, e) for i, e in entries if plain(text_of(e, "Name")) == default]
    scopes = {text_of(entry, "Scope").casefold(): (i, entry) for i, entry in mine}
    pairs = ((dns, netbios), (netbios, dns))
    return [
        (*scopes[have.casefold()], wanted)
        for have, wanted in pairs
        if have.casefold() in scopes and wanted.casefold() not in scopes
    ]


def names_look_swapped(spec: dict[str, Any]) -> bool:
    """Return whether DnsName and DnsTreeName are perhaps each other's: no root is below another."""
    domain = domain_of(spec)
    dns, tree = text_of(domain, "DnsName").casefold(), text_of(domain, "DnsTreeName").casefold()
    return (bool(dns) and tree.endswith(f".{dns}")) or names_are_swapped(spec)


def names_are_swapped(spec: dict[str, Any]) -> bool:
    """Return whether DnsName and DnsTreeName are certainly each other's: the scopes say so."""
    domain = domain_of(spec)
    dns, tree = text_of(domain, "DnsName").casefold(), text_of(domain, "DnsTreeName").casefold()
    if not dns or not tree or dns == tree or dns.endswith(f".{tree}"):
        return False
    scopes = {text_of(entry, "Scope").casefold() for _, entry in accounts_of(spec)}
    return tree in scopes and dns not in scopes


def nearest_key(key: str, known: frozenset[str], present: dict[str, Any]) -> str | None:
    """Return the absent known key that an unknown one is nearly, None if there is no such."""
    absent = [name for name in sorted(known) if name not in present]
    same = [name for name in absent if name.casefold() == key.casefold()]
    # Long keys are no slips of the pen, and comparing them takes long.
    return same[0] if same else nearest(key, absent) if len(key) <= _MAX_COMPARED else None


def nearest(text: str, names: Iterable[str]) -> str | None:
    """Return the name that a text is nearly, None if there is no such; long ones are cut."""
    from difflib import get_close_matches  # slow to load, and seldom wanted

    cut = {name[:_MAX_COMPARED]: name for name in names}
    found = get_close_matches(text[:_MAX_COMPARED], list(cut)[:_MAX_NAMES], 1, 0.8)
    return cut[found[0]] if found else None


def tables_of(spec: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Return every object that the schema describes: its pointer, its place in it, itself."""
    yield "", "", spec
    if domain := domain_of(spec):
        yield DOMAIN, "DomainJoinConfig", domain
    if directory := directory_of(spec):
        yield DIRECTORY, "ActiveDirectoryConfig", directory
    for index, entry in accounts_of(spec):
        yield f"{ACCOUNTS}/{index}", "GroupManagedServiceAccounts", entry
    host = host_of(spec)
    if host is not None:
        yield HOST, "HostAccountConfig", host
