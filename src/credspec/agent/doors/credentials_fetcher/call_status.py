"""The gRPC status of a refusal: whether the caller should ask again without changing anything.

Clients such as the ECS agent repeat a call that ended in UNAVAILABLE, INTERNAL, RESOURCE_EXHAUSTED,
ABORTED or DEADLINE_EXCEEDED, and take every other status for final. So what is transient has
one of the former, and what must be changed first one of the latter. The class of the error decides.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from credspec.errors import (
    AgentNotPermittedError,
    AgentUnreachableError,
    CertificateTimeError,
    ClockRefusalError,
    CredspecError,
    InvalidSpecError,
    NoAnswerError,
    NotFoundError,
    NotPermittedError,
    PermanentFaultError,
    QuotaExceededError,
    TlsTrustError,
    TooManyRequestsError,
    TransientRefusalError,
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
    TlsTrustError: "UNAVAILABLE",
    CertificateTimeError: "UNAVAILABLE",
    AgentUnreachableError: "UNAVAILABLE",
    PermanentFaultError: "FAILED_PRECONDITION",
    TransientRefusalError: "INTERNAL",
    ClockRefusalError: "INTERNAL",
    CredspecError: "INTERNAL",
}
"""The status of each class of errors; of another module's class its nearest base decides."""


def status_of(error: CredspecError) -> StatusName:
    """Return the name of the gRPC status that an error is sent with.

    Of an error that joins several, one that is final decides: asking again cannot help then.
    """
    statuses = [_status_of_one(part) for part in error.parts or (error,)]
    return next((status for status in statuses if status not in RETRIABLE), statuses[0])


def _status_of_one(error: CredspecError) -> StatusName:
    return next(STATUS_OF_CLASS[cls] for cls in type(error).__mro__ if cls in STATUS_OF_CLASS)
