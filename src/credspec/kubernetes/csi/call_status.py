"""Which gRPC status an error is, as CSI uses them; its text is shown in the pod's events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from credspec.errors import (
    AgentUnreachableError,
    CredspecError,
    InvalidSpecError,
    NotFoundError,
    NotPermittedError,
    TooManyRequestsError,
    UnreachableError,
    UsageError,
)

if TYPE_CHECKING:
    import grpc

# The first that fits. UNAVAILABLE is for what passes by itself.
_NAMES: Final[tuple[tuple[type[CredspecError], str], ...]] = (
    (NotFoundError, "NOT_FOUND"),
    (NotPermittedError, "PERMISSION_DENIED"),
    (UsageError, "INVALID_ARGUMENT"),
    (InvalidSpecError, "FAILED_PRECONDITION"),
    (UnreachableError, "UNAVAILABLE"),
    (AgentUnreachableError, "UNAVAILABLE"),
    (TooManyRequestsError, "UNAVAILABLE"),
)
_MOST_CHARACTERS: Final = 2000
"""gRPC sends a text in a header, of which the kubelet takes 8 KiB; an event has 1 KiB."""


def status_name(error: CredspecError) -> str:
    """Return the name of an error's status."""
    if error.retry_after is not None:
        return "UNAVAILABLE"
    return next((name for kind, name in _NAMES if isinstance(error, kind)), "INTERNAL")


def status_of(error: CredspecError) -> tuple[grpc.StatusCode, str]:
    """Return the status of an error and its text, with all codes."""
    import grpc

    return getattr(grpc.StatusCode, status_name(error)), str(error)[:_MOST_CHARACTERS]
