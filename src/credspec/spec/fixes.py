"""Fixes what can be fixed safely: where only one thing can have been meant."""

from __future__ import annotations

import re
from copy import deepcopy
from typing import Any, Final

from credspec.spec.file_kind import other_kind
from credspec.spec.parts import (
    accounts_of,
    directory_of,
    domain_of,
    host_of,
    names_are_swapped,
    nearest_key,
    plain,
    tables_of,
    text_of,
    twins_missing,
)
from credspec.spec.strict_json import unsound_values
from credspec.spec.validation import described_keys, unwrapped

_ACCOUNT_SID: Final = re.compile(r"(?i)(S-1-5-21-\d+-\d+-\d+)-\d+")


def fixed(document: Any) -> tuple[Any, tuple[str, ...]]:
    """Return a fixed copy of a parsed document, and a line for each thing that was fixed.

    A document that is no sound JSON object, such as one with a repeated key, comes back as it is:
    which of the values was meant is unknown. So does one that is no credential spec at all.
    Fixing again changes nothing.
    """
    sound, unsound = unsound_values(document)
    if unsound:
        return document, ()
    repaired = deepcopy(sound)
    spec, pointer = unwrapped(repaired)
    if not isinstance(spec, dict) or (not pointer and other_kind(spec)):
        return document, ()
    done: list[str] = []
    _keys(spec, done)
    _shapes(spec, done)
    _keys(spec, done)  # of what has an object's shape only now
    _domain(spec, done)
    _names(spec, done)
    _host(spec, done)
    _entries(spec, done)
    return repaired, tuple(done)


def _keys(spec: dict[str, Any], done: list[str]) -> None:
    """Rename keys that are nearly right; objects below a renamed key are seen too."""
    for pointer, place, table in tables_of(spec):
        known = described_keys(place)
        for key in [key for key in table if key not in known]:
            wanted = nearest_key(key, known, table)
            if wanted is not None:
                _rename(table, key, wanted)
                done.append(f"renamed {pointer}/{key} to {wanted}")


def _rename(table: dict[str, Any], key: str, wanted: str) -> None:
    """Rename a key in its place."""
    pairs = [(wanted if name == key else name, value) for name, value in table.items()]
    table.clear()
    table.update(pairs)


def _shapes(spec: dict[str, Any], done: list[str]) -> None:
    if spec.get("CmsPlugins", "ActiveDirectory") == "ActiveDirectory":
        others = {key: value for key, value in spec.items() if key != "CmsPlugins"}
        spec.clear()
        spec.update({"CmsPlugins": ["ActiveDirectory"], **others})
        done.append('set CmsPlugins to ["ActiveDirectory"]')
    directory = directory_of(spec)
    if isinstance(directory.get("GroupManagedServiceAccounts"), dict):
        directory["GroupManagedServiceAccounts"] = [directory["GroupManagedServiceAccounts"]]
        done.append("made GroupManagedServiceAccounts a list")


def _domain(spec: dict[str, Any], done: list[str]) -> None:
    domain = domain_of(spec)
    sid = _ACCOUNT_SID.fullmatch(text_of(domain, "Sid"))
    if sid is not None:
        domain["Sid"] = sid[1]
        done.append("left the account's number out of Sid")
    guid = text_of(domain, "Guid")
    if guid.startswith("{"):
        domain["Guid"] = guid.strip("{}")
        done.append("took the braces off Guid")
    if names_are_swapped(spec):
        domain["DnsName"], domain["DnsTreeName"] = domain["DnsTreeName"], domain["DnsName"]
        done.append("swapped DnsName and DnsTreeName")
    entries = accounts_of(spec)
    if domain and entries and "MachineAccountName" not in domain and text_of(entries[0][1], "Name"):
        domain["MachineAccountName"] = text_of(entries[0][1], "Name")
        done.append("set MachineAccountName to the first account")


def _names(spec: dict[str, Any], done: list[str]) -> None:
    named = [(domain_of(spec), "MachineAccountName")]
    named += [(entry, "Name") for _, entry in accounts_of(spec)]
    for table, key in named:
        name = text_of(table, key)
        if name.endswith("$"):
            table[key] = name.rstrip("$")
            done.append(f"left the $ out of {key}")


def _host(spec: dict[str, Any], done: list[str]) -> None:
    host = host_of(spec)
    if host is None:
        return
    guid = text_of(host, "PluginGUID")
    if guid and not (guid.startswith("{") and guid.endswith("}")):
        host["PluginGUID"] = "{" + guid.strip("{}") + "}"
        done.append("put PluginGUID into braces")
    version = host.get("PortableCcgVersion", "")
    is_other = isinstance(version, str) and version != "1"
    if is_other or (version == 1 and not isinstance(version, bool)):
        host["PortableCcgVersion"] = "1"
        done.append("set PortableCcgVersion")


def _entries(spec: dict[str, Any], done: list[str]) -> None:
    directory = directory_of(spec)
    entries = directory.get("GroupManagedServiceAccounts")
    if not isinstance(entries, list):
        return
    seen: set[tuple[str, str]] = set()
    kept: list[Any] = []
    for entry in entries:
        name = text_of(entry, "Name") if isinstance(entry, dict) else ""
        scope = text_of(entry, "Scope") if isinstance(entry, dict) else ""
        key = (plain(name), scope.casefold())
        if name and scope and key in seen:
            done.append(f"removed the second entry of {name} with scope {scope}")
            continue
        seen.add(key)
        kept.append(entry)
    directory["GroupManagedServiceAccounts"] = kept
    for index, entry, wanted in twins_missing(spec):
        kept.insert(index + 1, {**entry, "Scope": wanted})
        done.append(f"added an entry of {text_of(entry, 'Name')} with scope {wanted}")
