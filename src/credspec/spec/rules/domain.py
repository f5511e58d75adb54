"""Rules about ``DomainJoinConfig``: the identifiers and names of the domain."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from credspec.errors import Problem
from credspec.spec.parts import DOMAIN, accounts_of, domain_of, text_of
from credspec.spec.rules.rule import FixableRule, Rule, RuleSet, whole

Spec = dict[str, Any]
_ACCOUNT_SID: Final = re.compile(r"(?i)(S-1-5-21-\d+-\d+-\d+)-\d+")
_FIELDS: Final = ("Sid", "Guid", "DnsTreeName", "NetBiosName")


class SidOfAccount(FixableRule[Spec]):
    """The SID is that of an account."""

    code = "lint-sid-of-account"
    reason = "The SID is the domain's, without the account's last number."

    def check(self, part: Spec) -> Iterator[Problem]:
        """Yield a problem for a SID with one number more than a domain's."""
        sid = _ACCOUNT_SID.fullmatch(text_of(domain_of(part), "Sid"))
        if sid is not None:
            yield Problem(
                self.code,
                f"{sid[0]}, the SID of an account",
                f"{DOMAIN}/Sid",
                f"{sid[1]}, the domain's",
                "leave the last number out",
            )

    def fix(self, part: Spec) -> str:
        """Remove the last number."""
        domain = domain_of(part)
        domain["Sid"] = domain["Sid"].rpartition("-")[0]
        return "left the account's number out of Sid"


class GuidBraces(FixableRule[Spec]):
    """The GUID of the domain is in braces."""

    code = "lint-guid-braces"
    reason = "The GUID of a domain is written without braces."

    def check(self, part: Spec) -> Iterator[Problem]:
        """Yield a problem for a GUID that begins with a brace."""
        guid = text_of(domain_of(part), "Guid")
        if guid.startswith("{"):
            where = f"{DOMAIN}/Guid"
            yield Problem(self.code, guid[:60], where, guid.strip("{}")[:60], "no braces")

    def fix(self, part: Spec) -> str:
        """Remove the braces."""
        domain = domain_of(part)
        domain["Guid"] = domain["Guid"].strip("{}")
        return "took the braces off Guid"


class DomainFieldMissing(Rule[Spec]):
    """A field that the schema does not require is missing."""

    code = "lint-domain-field-missing"
    reason = "Windows needs all fields of DomainJoinConfig."

    def check(self, part: Spec) -> Iterator[Problem]:
        """Yield a problem for each missing field, none if the whole object is missing."""
        domain = domain_of(part)
        for field in _FIELDS if domain else ():
            if field not in domain:
                yield Problem(
                    self.code,
                    "missing",
                    f"{DOMAIN}/{field}",
                    "what the directory says",
                    "make the spec again with credspec new, or ask credspec check",
                )


class DnsNamesSwapped(FixableRule[Spec]):
    """DnsName and DnsTreeName are each other's."""

    code = "lint-dns-names-swapped"
    reason = "PowerShell modules from before 2018 swapped DnsName and DnsTreeName."

    def check(self, part: Spec) -> Iterator[Problem]:
        """Yield a problem for names that are perhaps swapped: no root is below another domain."""
        domain = domain_of(part)
        dns, tree = _dns_names(part)
        if (dns and tree.endswith(f".{dns}")) or self.is_fixable(part):
            yield Problem(
                self.code,
                f"{text_of(domain, 'DnsTreeName')[:80]!r}, while DnsName is "
                f"{text_of(domain, 'DnsName')[:80]!r}",
                f"{DOMAIN}/DnsTreeName",
                "the forest's root domain here, the account's domain there",
                "swap them",
            )

    def is_fixable(self, part: Spec) -> bool:
        """Return whether they are certainly swapped: the accounts' scopes say so."""
        dns, tree = _dns_names(part)
        if not dns or not tree or dns == tree or dns.endswith(f".{tree}"):
            return False
        scopes = {text_of(entry, "Scope").casefold() for _, entry in accounts_of(part)}
        return tree in scopes and dns not in scopes

    def fix(self, part: Spec) -> str:
        """Swap them."""
        domain = domain_of(part)
        domain["DnsName"], domain["DnsTreeName"] = domain["DnsTreeName"], domain["DnsName"]
        return "swapped DnsName and DnsTreeName"


class DnsNameSingleLabel(Rule[Spec]):
    """A DNS name has no dot."""

    code = "lint-dns-name-single-label"
    reason = "A name without a dot is usually a NetBIOS name, which DNS does not know."

    def check(self, part: Spec) -> Iterator[Problem]:
        """Yield a problem for each such name."""
        for field in ("DnsName", "DnsTreeName"):
            name = text_of(domain_of(part), field)
            if name and "." not in name:
                yield Problem(
                    self.code,
                    repr(name[:60]),
                    f"{DOMAIN}/{field}",
                    "a DNS name such as contoso.com",
                    "write the full DNS name, unless the domain really has one label",
                )


def _dns_names(spec: Spec) -> tuple[str, str]:
    """Return DnsName and DnsTreeName as they are compared."""
    domain = domain_of(spec)
    return text_of(domain, "DnsName").casefold(), text_of(domain, "DnsTreeName").casefold()


DOMAIN_FIELDS: Final = RuleSet(
    whole,
    (
        SidOfAccount(),
        GuidBraces(),
        DomainFieldMissing(),
        DnsNamesSwapped(),
        DnsNameSingleLabel(),
    ),
)
