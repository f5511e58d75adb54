"""Which failures pass by themselves, so that a container's start had better wait than fail.

The answer goes out as ``Retry-After`` (RFC 9110, 10.2.3); the runtime shim, Podman's hook and
``credspec run`` wait for what has it, and for nothing else that the agent answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from credspec.errors import CredspecError, TooManyRequestsError, UnreachableError

JUST_BOOTED_SECONDS: Final = 600.0
"""How long after the host's boot its clock may be wrong and its DNS may not know the domain yet."""

# Refusals in general: a misspelt domain, a clock that nobody keeps. After a boot they may pass.
_AFTER_A_BOOT: Final = frozenset(
    {
        "domain-not-found",
        "kdc-clock-skew",
        "kdc-ticket-times",
        "ldap-certificate-not-yet-valid",
        "ldap-certificate-expired",
        "ticket-unfit",
    }
)
# Of the class of outages, but lasting: answers of DNS and faults of the set-up.
_NO_OUTAGE: Final = frozenset({"domain-not-found"})
_OF_THE_SETUP: Final = ("ldap-certificate", "ldap-ca-file")
# More leases than a user may have do not become fewer by waiting.
_QUOTAS: Final = frozenset({"leases-too-many"})


def uptime() -> float:
    """Return for how many seconds the host has been up, sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def retry_after(error: CredspecError, uptime: Callable[[], float] = uptime) -> int | None:
    """Return in how many seconds to try again, None for what waiting does not help.

    A domain that does not answer passes; a refusal does not, nor does a fault of a document, of the
    policy or of the set-up.
    """
    if isinstance(error, TooManyRequestsError):
        return None if error.code in _QUOTAS else error.retry_after
    codes = {problem.code for problem in error.problems}
    lasting = {c for c in codes if c in _NO_OUTAGE or c.startswith(_OF_THE_SETUP)}
    if not isinstance(error, UnreachableError):
        lasting = codes
    if not lasting:
        return 1
    return 1 if lasting <= _AFTER_A_BOOT and uptime() < JUST_BOOTED_SECONDS else None
