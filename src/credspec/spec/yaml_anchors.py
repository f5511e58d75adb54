"""Anchors, aliases and merge keys of YAML, which Compose files have."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import yaml

MAX_EXPANDED: Final = 10_000
"""How many values the aliases of one file may stand for."""

MERGE_KEY: Final = "<<"


class Anchors:
    """The values that a file has named so far."""

    def __init__(self) -> None:
        self._named: dict[str, Any] = {}
        self._left = MAX_EXPANDED

    def add(self, event: yaml.NodeEvent, value: Any) -> None:
        """Remember a value if the file names it; a collection may not be full yet."""
        if event.anchor is not None:
            self._named[event.anchor] = value

    def value(self, event: yaml.AliasEvent, open_collections: list[Any]) -> tuple[Any] | None:
        """Return a copy of what an alias stands for; None if there is none, or no end of it."""
        name = event.anchor or ""
        if name not in self._named:
            return None
        found = self._named[name]
        if any(found is collection for collection in open_collections):
            return None
        self._left -= _number_of_values(found, self._left)
        return (deepcopy(found),) if self._left >= 0 else None


def merge(collection: Any) -> None:
    """Put in what the merge key of a mapping names; keys that the mapping has itself count."""
    merged = collection.pop(MERGE_KEY, None) if isinstance(collection, dict) else None
    for table in merged if isinstance(merged, list) else [merged]:
        for key, value in table.items() if isinstance(table, dict) else ():
            collection.setdefault(key, value)


def _number_of_values(document: Any, most: int) -> int:
    """Return the number of values in a document, or some number above `most`."""
    waiting, count = [document], 0
    while waiting and count <= most:
        value = waiting.pop()
        count += 1
        if isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
    return count
