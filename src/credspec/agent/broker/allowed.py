"""Whether patterns allow a service."""

from __future__ import annotations

from dataclasses import replace

from credspec.kerberos.service_names import ServiceName, ServicePattern

Patterns = tuple[ServicePattern, ...] | None
"""What may be had; None for no limit."""


class DeniedError(Exception):
    """A service is not allowed, for a reason; an answer, not a fault."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def check(patterns: Patterns, name: ServiceName, own_realm: str) -> str | None:
    """Return the pattern that covers a service, None if nothing limits it.

    Raises:
        DeniedError: no pattern does.
    """
    if patterns is None:
        return None
    for pattern in patterns:
        if pattern.covers(name, own_realm):
            return str(pattern)
    raise DeniedError(f"no pattern covers {name.service_class}/{name.host}")


def of_any_realm(patterns: Patterns) -> Patterns:
    """Return patterns that look at no realm: which it is, the KDC tells."""
    return patterns and tuple(replace(pattern, realm=None) for pattern in patterns)
