"""Rules about keys that the schema does not describe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from credspec.errors import Problem
from credspec.spec.parts import MAX_COMPARED, nearest, tables_of
from credspec.spec.rules.rule import FixableRule, Rule, RuleSet
from credspec.spec.strict_json import pointer_to
from credspec.spec.validation import described_keys


class UnknownKey(NamedTuple):
    """A key that the schema does not describe: its object, the object's pointer, the key.

    `meant` is the known key that it is nearly, empty if there is no such.
    """

    table: dict[str, Any]
    pointer: str
    key: str
    meant: str

    @property
    def where(self) -> str:
        """The JSON pointer of the key."""
        return pointer_to(self.pointer, self.key)


class KeyUnknown(Rule[UnknownKey]):
    """A key that is not even nearly a known one."""

    code = "lint-key-unknown"
    reason = "Windows ignores keys it does not know, and Kubernetes drops them."

    def check(self, part: UnknownKey) -> Iterator[Problem]:
        """Yield a problem for a key that means nothing."""
        if not part.meant:
            yield Problem(self.code, "an unknown key", part.where, remedy="remove it")


class KeyMisspelt(FixableRule[UnknownKey]):
    """A key that is nearly a known one which is missing."""

    code = "lint-key-misspelt"
    reason = "Windows ignores keys it does not know; this is nearly one."

    def check(self, part: UnknownKey) -> Iterator[Problem]:
        """Yield a problem for a key whose meaning can be guessed."""
        if part.meant:
            remedy = f"rename it to {part.meant!r}"
            yield Problem(self.code, "an unknown key", part.where, repr(part.meant), remedy)

    def fix(self, part: UnknownKey) -> str:
        """Rename the key; it keeps its position."""
        pairs = [
            (part.meant if name == part.key else name, value) for name, value in part.table.items()
        ]
        part.table.clear()
        part.table.update(pairs)
        return f"renamed {part.pointer}/{part.key} to {part.meant}"


def _unknown_keys(spec: dict[str, Any]) -> Iterator[UnknownKey]:
    """Yield the unknown keys; also those of objects whose own key is renamed meanwhile."""
    for pointer, name, table in tables_of(spec):
        known = described_keys(name)
        taken = set(table)
        for key in [key for key in table if key not in known]:
            meant = _nearest_key(key, known, taken)
            if meant is not None:
                taken.add(meant)
            yield UnknownKey(table, pointer, key, meant or "")


def _nearest_key(key: str, known: frozenset[str], taken: set[str]) -> str | None:
    absent = [name for name in sorted(known) if name not in taken]
    same = [name for name in absent if name.casefold() == key.casefold()]
    # Long keys are no slips of the pen, and comparing them takes long.
    return same[0] if same else nearest(key, absent) if len(key) <= MAX_COMPARED else None


KEYS: Final = RuleSet(_unknown_keys, (KeyUnknown(), KeyMisspelt()))
