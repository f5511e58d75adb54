"""Which domain a host account is of, and so where its password may go.

That is decided by the secret itself and by this host's configuration, never by the document that
names the secret: the document's author also chooses its ``DnsName`` and ``NetBiosName``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NoReturn

from credspec.config_table import Kind, NotTakenError, wrong_value
from credspec.directory.domain_names import is_netbios_name
from credspec.directory.locator import valid_domain
from credspec.errors import NotPermittedError, Problem, UsageError
from credspec.providers.provider import HostAccount


@dataclass(frozen=True, slots=True)
class AccountDomains:
    """The domains that passwords may go to.

    `by_netbios_name` are their DNS names, both in lower case. If it is empty, a password may go to
    the domain that its secret names, which must then be a DNS name with a dot: a name without one
    says nothing of where a domain is.
    """

    by_netbios_name: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def dns_name(self, account: HostAccount, where: str) -> str:
        """Return the DNS name of an account's domain in lower case.

        Raises:
            NotPermittedError: `host-account-other-domain`.
        """
        name = account.domain.lower().removesuffix(".")
        if "." not in name:
            found = self.by_netbios_name.get(name)
            return found if found is not None else _unmapped(name, where)
        self.check_home(name, where)
        return name

    def check_home(self, name: str, where: str) -> None:
        """Refuse the DNS name of a domain that passwords may not go to.

        Raises:
            NotPermittedError: `host-account-other-domain`.
        """
        name = name.lower().removesuffix(".")
        if self.by_netbios_name and name not in self.by_netbios_name.values():
            allowed = sorted(set(self.by_netbios_name.values()))
            raise NotPermittedError.of(
                "host-account-other-domain",
                f"the account is of the domain {name}, to which this host sends no password",
                where=where,
                expected=" or ".join(allowed),
                remedy="add its NetBIOS and its DNS name to domains under [providers] in the "
                "configuration",
            )

    def check(self, account: HostAccount, domain: str, where: str) -> None:
        """Refuse an account of another domain than `domain`, the DNS name to log on at.

        Raises:
            NotPermittedError: `host-account-other-domain`.
        """
        found = self.dns_name(account, where)
        if found != domain.lower().removesuffix("."):
            raise NotPermittedError.of(
                "host-account-other-domain",
                f"the account is of the domain {found}",
                where=where,
                expected=domain,
                remedy="give an account of the spec's own domain",
            )


def _unmapped(name: str, where: str) -> NoReturn:
    found = (
        f"the account is of the domain {name.upper()}, a NetBIOS name, and this host does not know "
        "which domain that is"
        if name
        else "the account names no domain"
    )
    raise NotPermittedError.of(
        "host-account-other-domain",
        found,
        where=where,
        expected="the DNS name of the account's domain in the secret, or in the configuration",
        remedy="write the DNS name as domainName, or add domains = "
        f'{{ {name.upper() or "CONTOSO"} = "DNS name of the domain" }} under [providers] in the '
        "configuration",
    )


def account_domains(value: Any, where: str) -> AccountDomains | Problem:
    """Read ``domains`` of the table ``[providers]``; return what is wrong if anything is."""
    found: dict[str, str] = {}
    for name, domain in value.items() if isinstance(value, dict) else ():
        key = name.lower()
        if not is_netbios_name(name) or not isinstance(domain, str) or key in found:
            break
        try:
            found[key] = valid_domain(domain)
        except UsageError:
            break
    if not isinstance(value, dict) or len(found) != len(value):
        return wrong_value(where, f"a value of type {type(value).__name__}", _EXPECTED)
    return AccountDomains(MappingProxyType(found))


def _read(value: Any) -> AccountDomains:
    found = account_domains(value, "")
    if isinstance(found, Problem):
        raise NotTakenError((value, _EXPECTED))
    return found


_EXPECTED: Final = 'a table of DNS names by NetBIOS name, such as { CONTOSO = "contoso.com" }'
ACCOUNT_DOMAINS: Final = Kind(_EXPECTED, _read)
"""What ``domains`` of the table ``[providers]`` takes."""
