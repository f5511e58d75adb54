"""Patterns of accounts, ``ACCOUNT@DOMAIN`` with ``*`` and ``?``, as the policy has them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Final

ACCOUNT_PATTERN: Final = re.compile(r"[^@/\s]{1,64}(?:@[^@/\s]{1,255})?")
"""What a pattern looks like; without ``@`` it holds for every domain."""


def with_domain(accounts: Sequence[str], domain: str) -> list[str]:
    """Return accounts as ``NAME@domain``; those without a domain are of `domain`."""
    return [name if "@" in name else f"{name}@{domain}" for name in accounts]


def covers(patterns: Iterable[str], name: str) -> bool:
    """Return whether one of the patterns covers ``NAME@domain``."""
    return any(
        fnmatchcase(name.lower(), (pattern if "@" in pattern else f"{pattern}@*").lower())
        for pattern in patterns
    )
