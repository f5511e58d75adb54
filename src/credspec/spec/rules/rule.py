"""What a lint rule is: its code, its reason, its check and, where one is safe, its fix."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from credspec.errors import Problem

Part = TypeVar("Part")


class Rule(ABC, Generic[Part]):
    """A rule about one part of a document, such as a name; what it finds is a warning.

    `code` is stable: scripts may rely on it. `reason` is a sentence that says why it is a rule.
    """

    code: ClassVar[str]
    reason: ClassVar[str]
    fixable: ClassVar[bool] = False

    @abstractmethod
    def check(self, part: Part) -> Iterator[Problem]:
        """Yield what is doubtful about a part; pointers begin at the credential spec."""


class FixableRule(Rule[Part]):
    """A rule that can fix what it finds, where only one thing can have been meant."""

    fixable: ClassVar[bool] = True

    def is_fixable(self, part: Part) -> bool:
        """Return whether a part needs the fix, and it is certain what was meant."""
        return any(self.check(part))

    @abstractmethod
    def fix(self, part: Part) -> str:
        """Change a part for which `is_fixable` holds in place; return what was done."""


class RuleSet(NamedTuple):
    """Rules about the same kind of part, and how the parts of that kind are found.

    `parts_of` may be continued while its parts are fixed: it sees what a fix has changed.
    """

    parts_of: Callable[[dict[str, Any]], Iterable[Any]]
    rules: tuple[Rule[Any], ...]

    def check(self, spec: dict[str, Any]) -> Iterator[Problem]:
        """Yield what the rules find, part by part."""
        for part in self.parts_of(spec):
            for rule in self.rules:
                yield from rule.check(part)

    def fix(self, spec: dict[str, Any]) -> Iterator[str]:
        """Fix all parts in place; yield a line for each thing that was fixed."""
        for part in self.parts_of(spec):
            for rule in self.rules:
                if isinstance(rule, FixableRule) and rule.is_fixable(part):
                    yield rule.fix(part)


def whole(spec: dict[str, Any]) -> tuple[dict[str, Any]]:
    """Return the spec itself as the only part, for rules about several of its members."""
    return (spec,)
