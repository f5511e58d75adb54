"""The gRPC status of a refusal: whether the caller should ask again without changing anything.

Clients such as the ECS agent repeat a call that ended in UNAVAILABLE, INTERNAL, RESOURCE_EXHAUSTED,
ABORTED or DEADLINE_EXCEEDED, and take every other status for final. So what is transient has
one of the former, and what must be changed first one of the latter. The class of the error
decides; the tables by code are for what its class does not tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

from credspec.errors import (
    AgentNotPermittedError,
    AgentUnreachableError,
    CredspecError,
    InvalidSpecError,
    NoAnswerError,
    NotFoundError,
    NotPermittedError,
    QuotaExceededError,
    TooManyRequestsError,
    UnreachableError,
    UsageError,
)

StatusName: TypeAlias = Literal[
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "PERMISSION_DENIED",
    "FAILED_PRECONDITION",
    "RESOURCE_EXHAUSTED",
    "UNAVAILABLE",
    "INTERNAL",
]

RETRIABLE: Final[frozenset[StatusName]] = frozenset(
    {"RESOURCE_EXHAUSTED", "UNAVAILABLE", "INTERNAL"}
)
"""The statuses after which clients call again automatically."""

STATUS_OF_CLASS: Final[dict[type[CredspecError], StatusName]] = {
    UsageError: "INVALID_ARGUMENT",
    InvalidSpecError: "INVALID_ARGUMENT",
    NotFoundError: "NOT_FOUND",
    NotPermittedError: "PERMISSION_DENIED",
    AgentNotPermittedError: "PERMISSION_DENIED",
    TooManyRequestsError: "RESOURCE_EXHAUSTED",
    QuotaExceededError: "RESOURCE_EXHAUSTED",
    UnreachableError: "UNAVAILABLE",
    NoAnswerError: "UNAVAILABLE",
    AgentUnreachableError: "UNAVAILABLE",
    CredspecError: "INTERNAL",
}

TRANSIENT_REFUSALS: Final = frozenset(
    {
        # Clocks are synchronised without anybody asking for it.
        "kdc-clock-skew",
        "kdc-ticket-times",
        "ticket-unfit",
        # The next attempt logs on again, or asks another controller.
        "kdc-tgt-revoked",
        "kdc-failed",
    }
)
"""Codes of errors whose class is final, although the same call may succeed soon."""

PERMANENT_FAULTS: Final = frozenset(
    {
        "account-malformed",
        "domain-facts-malformed",
        "host-account-answer",
        "host-account-invalid",
        "host-account-refused",
        "key-version-missing",
        "ldap-name-invalid",
        "libldap-missing",
        "managed-password-malformed",
        "secret-invalid",
        "security-descriptor-malformed",
        "sid-malformed",
    }
)
"""Codes of plain `CredspecError`s that stay until an account, secret or host is corrected."""

TRANSIENT_FAULTS: Final = frozenset(
    {
        "audit-unwritable",
        "call-timeout",
        "calls-waiting",
        "clock-missing",
        "container-gone",
        "domain-facts-missing",
        "gss-cache",
        "host-account-provider",
        "internal-error",
        "journal-record-too-long",
        "journal-unwritable",
        "kerberos",
        "key-version-unstable",
        "krb5-conf-unwritable",
        "ldap",
        "lease-directory-full",
        "lease-directory-missing",
        "lease-directory-unwritable",
        "lease-tree-unwritable",
        "netlogon-answer-empty",
        "netlogon-answer-malformed",
        "user-lookup-timeout",
    }
)
"""Codes of plain `CredspecError`s that may pass: of a full disk, of a controller in trouble."""


def status_of(error: CredspecError) -> StatusName:
    """Return the name of the gRPC status that an error is sent with.

    Of an error that joins several, one that is final decides: asking again cannot help then.
    """
    statuses = [_status_of_one(part) for part in error.parts or (error,)]
    return next((status for status in statuses if status not in RETRIABLE), statuses[0])


def _status_of_one(error: CredspecError) -> StatusName:
    code = error.code
    if code in PERMANENT_FAULTS and next(_classes(error)) is CredspecError:
        return "FAILED_PRECONDITION"
    status = STATUS_OF_CLASS[next(_classes(error))]
    return "INTERNAL" if status not in RETRIABLE and code in TRANSIENT_REFUSALS else status


def _classes(error: CredspecError) -> Iterator[type[CredspecError]]:
    """Return the classes of an error that have a status, the nearest first."""
    return (cls for cls in type(error).__mro__ if cls in STATUS_OF_CLASS)
