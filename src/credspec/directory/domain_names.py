"""Names of domains as they stand in a directory: NetBIOS names and naming contexts."""

from __future__ import annotations

import re
from typing import Final

from credspec.directory.locator import valid_domain
from credspec.errors import UsageError

# MS-NBTE 2.2.1, without what would make it look like a DNS name or a logon name.
_NETBIOS_NAME: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f\\/:*?\"<>|.@\s\ufffd]{1,15}")


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
