"""Which failures pass by themselves, so that a container's start had better wait than fail.

The answer goes out as ``Retry-After`` (RFC 9110, 10.2.3); the runtime shim, Podman's hook and
``credspec run`` wait for what has it, and for nothing else that the agent answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from credspec.errors import (
    CertificateTimeError,
    ClockRefusalError,
    CredspecError,
    QuotaExceededError,
    TlsTrustError,
    TooManyRequestsError,
    UnreachableError,
)

JUST_BOOTED_SECONDS: Final = 600.0
"""How long after the host's boot its clock may be wrong and its DNS may not know the domain yet."""

_OF_CLOCKS: Final = (ClockRefusalError, CertificateTimeError)


def uptime() -> float:
    """Return for how many seconds the host has been up, sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def retry_after(error: CredspecError, uptime: Callable[[], float] = uptime) -> int | None:
    """Return in how many seconds to try again, None for what waiting does not help.

    A domain that does not answer passes; a refusal does not, nor does a fault of a document, of the
    policy or of the set-up.
    """
    if isinstance(error, TooManyRequestsError):
        return None if isinstance(error, QuotaExceededError) else error.retry_after
    parts = error.parts or (error,)
    lasting = [part for part in parts if not _is_outage(part)]
    if not lasting:
        return 1
    may_pass = all(_passes_after_a_boot(part) for part in lasting)
    return 1 if may_pass and uptime() < JUST_BOOTED_SECONDS else None


def _is_outage(error: CredspecError) -> bool:
    """Return whether a server is away; an answer of DNS and a fault of the set-up are none."""
    if not isinstance(error, UnreachableError) or isinstance(error, TlsTrustError):
        return False
    return not _is_unknown_domain(error)


def _passes_after_a_boot(error: CredspecError) -> bool:
    """Return whether the clock, or a DNS server that is not up yet, may be the cause."""
    return isinstance(error, _OF_CLOCKS) or _is_unknown_domain(error)


def _is_unknown_domain(error: CredspecError) -> bool:
    return error.code == "domain-not-found"
