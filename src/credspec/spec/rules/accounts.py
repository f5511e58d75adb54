"""Rules about the accounts of a spec: which is the default one, and the scopes of each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from credspec.errors import Problem
from credspec.spec.parts import (
    ACCOUNTS,
    DOMAIN,
    accounts_of,
    directory_of,
    domain_of,
    nearest,
    plain,
    text_of,
)
from credspec.spec.rules.rule import FixableRule, Rule, RuleSet, whole

Spec = dict[str, Any]
_DEFAULT: Final = "MachineAccountName"


class MachineAccountMissing(FixableRule[Spec]):
    """The default account is not named."""

    code = "lint-machine-account-missing"
    reason = "It names the account that a container uses."

    def check(self, part: Spec) -> Iterator[Problem]:
        """Yield a problem if there are accounts and none is named as the default."""
        domain, listed = domain_of(part), _listed(part)
        if domain and listed and _DEFAULT not in domain:
            yield Problem(
                self.code,
                "missing",
                f"{DOMAIN}/{_DEFAULT}",
                "the account that a container uses by default",
                f"here it is the first one, {listed[0][:60]!r}",
            )

    def is_fixable(self, part: Spec) -> bool:
        """Return whether it is missing and the first account has a name."""
        return any(self.check(part)) and bool(_listed(part)[0])

    def fix(self, part: Spec) -> str:
        """Name the first account."""
        domain_of(part)[_DEFAULT] = _listed(part)[0]
        return f"set {_DEFAULT} to the first account"


class MachineAccountUnlisted(Rule[Spec]):
    """The default account is none of the accounts."""

    code = "lint-machine-account-unlisted"
    reason = "The default account must be among the accounts that the container may use."

    def check(self, part: Spec) -> Iterator[Problem]:
        """Yield a problem if the name is on no entry."""
        name, listed = text_of(domain_of(part), _DEFAULT), _listed(part)
        if name and listed and plain(name) not in {plain(other) for other in listed}:
            near = nearest(name, listed)
            yield Problem(
                self.code,
                repr(name[:60]),
                f"{DOMAIN}/{_DEFAULT}",
                "one of the accounts",
                f"did you mean {near!r}?" if near else "add it to GroupManagedServiceAccounts",
            )


class AccountEntry(NamedTuple):
    """An entry with a name and a scope: the list that holds it, and its position there.

    `domain_names` are the DNS and the NetBIOS name of the spec's domain, as far as it has them.
    """

    entries: list[Any]
    position: int
    name: str
    scope: str
    is_repeated: bool
    domain_names: tuple[str, ...]


class AccountTwice(FixableRule[AccountEntry]):
    """An entry says the same as one before it."""

    code = "lint-account-twice"
    reason = "The same account with the same scope is listed twice."

    def check(self, part: AccountEntry) -> Iterator[Problem]:
        """Yield a problem for an entry that is a repetition."""
        if part.is_repeated:
            yield Problem(
                self.code,
                f"{part.name[:60]!r} with scope {part.scope[:60]!r} again",
                f"{ACCOUNTS}/{part.position}",
                remedy="remove one of the entries",
            )

    def fix(self, part: AccountEntry) -> str:
        """Remove the entry."""
        del part.entries[part.position]
        return f"removed the second entry of {part.name} with scope {part.scope}"


class ScopeUnknown(Rule[AccountEntry]):
    """The scope of an entry is no name of the spec's domain."""

    code = "lint-scope-unknown"
    reason = "A scope that is no name of the spec's domain is valid only for a trusted domain."

    def check(self, part: AccountEntry) -> Iterator[Problem]:
        """Yield a problem for a scope of another domain, or a misspelt one."""
        own = {name.casefold() for name in part.domain_names}
        if own and part.scope.casefold() not in own:
            near = nearest(part.scope.lower(), sorted(own))
            yield Problem(
                self.code,
                repr(part.scope[:60]),
                f"{ACCOUNTS}/{part.position}/Scope",
                " or ".join(name[:60] for name in part.domain_names),
                f"did you mean {near!r}?" if near else "right only for a trusted domain",
            )


class LoneEntry(NamedTuple):
    """The only entry of the default account: the list that holds it, its position there, itself.

    `missing_scope` is the other name of the domain.
    """

    entries: list[Any]
    position: int
    entry: dict[str, Any]
    missing_scope: str


class ScopeTwinMissing(FixableRule[LoneEntry]):
    """The default account has an entry for only one of the domain's two names.

    Additional accounts are written once by the PowerShell module, so theirs are not missed.
    """

    code = "lint-scope-twin-missing"
    reason = "Programs use the DNS and the NetBIOS name of the domain: each needs an entry."

    def check(self, part: LoneEntry) -> Iterator[Problem]:
        """Yield a problem for the entry."""
        yield Problem(
            self.code,
            "the only entry of the default account",
            f"{ACCOUNTS}/{part.position}",
            f"another with Scope {part.missing_scope[:80]!r}",
            "add one",
        )

    def fix(self, part: LoneEntry) -> str:
        """Add the other entry after it."""
        part.entries.insert(part.position + 1, {**part.entry, "Scope": part.missing_scope})
        return f"added an entry of {text_of(part.entry, 'Name')} with scope {part.missing_scope}"


def _lone_entries(spec: Spec) -> Iterator[LoneEntry]:
    """Yield the default account's entry if there is none with the other name of the domain."""
    dns, netbios = _names_of_domain(spec)
    entries = accounts_of(spec)
    if not dns or not netbios or dns.casefold() == netbios.casefold() or not entries:
        return
    default = plain(text_of(domain_of(spec), _DEFAULT) or text_of(entries[0][1], "Name"))
    scopes = {
        text_of(entry, "Scope").casefold(): (position, entry)
        for position, entry in entries
        if plain(text_of(entry, "Name")) == default
    }
    for present, other in ((dns, netbios), (netbios, dns)):
        if present.casefold() in scopes and other.casefold() not in scopes:
            position, entry = scopes[present.casefold()]
            yield LoneEntry(_list_of(spec), position, entry, other)


def _entries(spec: Spec) -> Iterator[AccountEntry]:
    """Yield the entries with a name and a scope, also while some of them are removed."""
    entries = _list_of(spec)
    domain_names = tuple(name for name in _names_of_domain(spec) if name)
    seen: set[tuple[str, str]] = set()
    position, length = 0, len(entries)
    while position < length:
        entry = entries[position] if isinstance(entries[position], dict) else {}
        name, scope = text_of(entry, "Name"), text_of(entry, "Scope")
        if name and scope:
            key = (plain(name), scope.casefold())
            yield AccountEntry(entries, position, name, scope, key in seen, domain_names)
            seen.add(key)
        removed = length - len(entries)
        position, length = position + 1 - removed, length - removed


def _list_of(spec: Spec) -> list[Any]:
    found = directory_of(spec).get("GroupManagedServiceAccounts")
    return found if isinstance(found, list) else []


def _listed(spec: Spec) -> list[str]:
    return [text_of(entry, "Name") for _, entry in accounts_of(spec)]


def _names_of_domain(spec: Spec) -> tuple[str, str]:
    domain = domain_of(spec)
    return text_of(domain, "DnsName"), text_of(domain, "NetBiosName")


DEFAULT_ACCOUNT: Final = RuleSet(whole, (MachineAccountMissing(), MachineAccountUnlisted()))
ENTRIES: Final = RuleSet(_entries, (AccountTwice(), ScopeUnknown()))
TWINS: Final = RuleSet(_lone_entries, (ScopeTwinMissing(),))
