"""Rules about the names of accounts, and of the Kubernetes object around a spec."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from credspec.errors import Problem
from credspec.spec.file_kind import is_object_name
from credspec.spec.parts import ACCOUNTS, DOMAIN, accounts_of, domain_of, text_of
from credspec.spec.rules.rule import FixableRule, Rule, RuleSet, whole

_MAX_NAME: Final = 14  # of the sAMAccountName's 15 one is the $


class AccountName(NamedTuple):
    """An account's name: the object and the key that hold it, and its JSON pointer."""

    table: dict[str, Any]
    key: str
    where: str

    @property
    def name(self) -> str:
        """The name, empty if it is no text."""
        return text_of(self.table, self.key)

    @property
    def shown(self) -> str:
        """The name as findings quote it."""
        return repr(self.name[:60])


class TrailingDollar(FixableRule[AccountName]):
    """The name ends with a dollar sign."""

    code = "lint-trailing-dollar"
    reason = "Windows adds the $ itself and expects names without it."

    def check(self, part: AccountName) -> Iterator[Problem]:
        """Yield a problem for a name with ``$``."""
        if part.name.endswith("$"):
            wanted = repr(part.name.rstrip("$")[:60])
            yield Problem(self.code, part.shown, part.where, wanted, "leave the $ out")

    def fix(self, part: AccountName) -> str:
        """Remove all dollar signs at the end."""
        part.table[part.key] = part.name.rstrip("$")
        return f"left the $ out of {part.key}"


class NameTooLong(Rule[AccountName]):
    """The name does not fit into a sAMAccountName."""

    code = "lint-name-too-long"
    reason = "A gMSA's sAMAccountName has at most 15 characters with its $."

    def check(self, part: AccountName) -> Iterator[Problem]:
        """Yield a problem for a name of more than 14 characters without ``$``."""
        length = len(part.name.rstrip("$"))
        if length > _MAX_NAME:
            yield Problem(
                self.code,
                f"{part.shown}, {length} characters",
                part.where,
                f"at most {_MAX_NAME} without the $",
                "give the sAMAccountName, not the display name",
            )


class NameQuestionMark(Rule[AccountName]):
    """The name has lost characters."""

    code = "lint-name-question-mark"
    reason = (
        "The PowerShell module writes ASCII and puts a question mark for every other character."
    )

    def check(self, part: AccountName) -> Iterator[Problem]:
        """Yield a problem for a name with a question mark."""
        if "?" in part.name:
            yield Problem(
                self.code,
                part.shown,
                part.where,
                "the account's name",
                "write the characters that were lost, or make the spec again with credspec new",
            )


class ObjectName(Rule[dict[str, Any]]):
    """The name of a ``GMSACredentialSpec`` object is none that Kubernetes takes."""

    code = "lint-object-name"
    reason = "Kubernetes accepts only lower-case letters, digits, - and . in names."

    def check(self, part: dict[str, Any]) -> Iterator[Problem]:
        """Yield a problem for the object's name; its pointer begins at the object."""
        metadata = part.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        if isinstance(name, str) and not is_object_name(name):
            yield Problem(
                self.code,
                repr(name[:60]),
                "/metadata/name",
                "lower-case letters, digits, - and ., such as contoso-webapp01",
                "rename it, also where pods and roles name it",
            )


def _names(spec: dict[str, Any]) -> Iterator[AccountName]:
    default = "MachineAccountName"
    yield AccountName(domain_of(spec), default, f"{DOMAIN}/{default}")
    for index, entry in accounts_of(spec):
        yield AccountName(entry, "Name", f"{ACCOUNTS}/{index}/Name")


NAMES: Final = RuleSet(_names, (TrailingDollar(), NameTooLong(), NameQuestionMark()))
OBJECT: Final = RuleSet(whole, (ObjectName(),))
"""Of the Kubernetes object around a spec, not of the spec."""
