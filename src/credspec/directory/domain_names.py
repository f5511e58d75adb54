"""Names of domains: DNS names, NetBIOS names and naming contexts."""

from __future__ import annotations

import re
from typing import Final

from credspec.errors import UsageError

# MS-NBTE 2.2.1, without what would make it look like a DNS name or a logon name.
_NETBIOS_NAME: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f\\/:*?\"<>|.@\s\ufffd]{1,15}")
DNS_NAME: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
    r"(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*",
    re.IGNORECASE,
)
"""A host's or domain's name as DNS can hold it (RFC 1035 2.3.4), without trailing dot."""


def valid_domain(domain: str) -> str:
    """Return a DNS domain name in lower case without trailing dot.

    Raises:
        UsageError: `domain-name-invalid`, before the name gets into a query or a path.
    """
    name = domain.removesuffix(".").lower()
    if not DNS_NAME.fullmatch(name):
        raise UsageError.of(
            "domain-name-invalid",
            f"{domain[:80]!r} is not a DNS domain name",
            where="domain",
            expected="a name such as contoso.com",
        )
    return name


def dns_name(name: object) -> str | None:
    """Return a DNS name of several labels in lower case, None if it is not one."""
    if not isinstance(name, str) or "." not in name.strip("."):
        return None
    try:
        return valid_domain(name)
    except UsageError:
        return None


def is_netbios_name(name: str) -> bool:
    """Return whether `name` can be a domain's NetBIOS name: at most 15 characters, no dot."""
    return _NETBIOS_NAME.fullmatch(name) is not None


def naming_context_to_dns(naming_context: str) -> str | None:
    """Return the DNS name, in lower case, that a domain's naming context stands for.

    ``DC=contoso,DC=com`` stands for ``contoso.com`` (MS-ADTS 3.1.1.1.5). None if it is not the
    name of a domain.
    """
    labels: list[str] = []
    for part in naming_context.split(","):
        key, separator, value = part.strip(" ").partition("=")
        if key.lower() != "dc" or not separator or "." in value:
            return None
        labels.append(value)
    try:
        return valid_domain(".".join(labels))
    except UsageError:
        return None
