"""The parts of a parsed document that may be wrong in any way: other types count as absent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

DOMAIN: Final = "/DomainJoinConfig"
DIRECTORY: Final = "/ActiveDirectoryConfig"
ACCOUNTS: Final = f"{DIRECTORY}/GroupManagedServiceAccounts"
HOST: Final = f"{DIRECTORY}/HostAccountConfig"
MAX_COMPARED: Final = 40
"""How many characters `nearest` compares."""
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


def nearest(text: str, names: Iterable[str]) -> str | None:
    """Return the name that a text is nearly, None if there is no such; long ones are cut."""
    from difflib import get_close_matches  # slow to load, and seldom wanted

    cut = {name[:MAX_COMPARED]: name for name in names}
    found = get_close_matches(text[:MAX_COMPARED], list(cut)[:_MAX_NAMES], 1, 0.8)
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
