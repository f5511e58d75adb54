"""Fixes what can be fixed safely: where only one thing can have been meant."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from credspec.spec.file_kind import other_kind
from credspec.spec.parts import directory_of
from credspec.spec.rules.keys import KEYS
from credspec.spec.rules.registry import FIX_ORDER
from credspec.spec.strict_json import unsound_values
from credspec.spec.validation import unwrapped


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
    return repaired, tuple(_fix(spec))


def _fix(spec: dict[str, Any]) -> Iterator[str]:
    yield from KEYS.fix(spec)
    yield from _fix_shapes(spec)
    yield from KEYS.fix(spec)  # of what has an object's shape only now
    for rules in FIX_ORDER:
        yield from rules.fix(spec)


def _fix_shapes(spec: dict[str, Any]) -> Iterator[str]:
    """Fix what the schema refuses, and no rule is needed for."""
    if spec.get("CmsPlugins", "ActiveDirectory") == "ActiveDirectory":
        others = {key: value for key, value in spec.items() if key != "CmsPlugins"}
        spec.clear()
        spec.update({"CmsPlugins": ["ActiveDirectory"], **others})
        yield 'set CmsPlugins to ["ActiveDirectory"]'
    directory = directory_of(spec)
    if isinstance(directory.get("GroupManagedServiceAccounts"), dict):
        directory["GroupManagedServiceAccounts"] = [directory["GroupManagedServiceAccounts"]]
        yield "made GroupManagedServiceAccounts a list"
