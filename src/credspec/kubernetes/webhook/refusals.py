"""Why a pod is not admitted: windows-gmsa's texts and codes, with what to do about it."""

from __future__ import annotations

import json
from typing import ClassVar, Final

from credspec.errors import (
    InvalidSpecError,
    NotFoundError,
    NotPermittedError,
    UnreachableError,
    UsageError,
)
from credspec.printable import printable


class ReviewMalformedError(UsageError):
    """What was sent is no review of a pod."""

    status: ClassVar[int] = 400


class NotAuthorizedError(NotPermittedError):
    """The pod's service account may not use the spec, or a pod's identity is to be changed."""

    status: ClassVar[int] = 403


class SpecMissingError(NotFoundError):
    """There is no object of that name."""

    status: ClassVar[int] = 404


class SpecEmptyError(InvalidSpecError):
    """The object has no credential spec."""

    status: ClassVar[int] = 417


class PodInvalidError(InvalidSpecError):
    """The pod asks for something that cannot be."""

    status: ClassVar[int] = 422


class ClusterError(UnreachableError):
    """The API server could not be asked."""

    status: ClassVar[int] = 500


AdmissionError = (
    ReviewMalformedError
    | NotAuthorizedError
    | SpecMissingError
    | SpecEmptyError
    | PodInvalidError
    | ClusterError
)

REFUSALS: Final = (
    ReviewMalformedError,
    NotAuthorizedError,
    SpecMissingError,
    SpecEmptyError,
    PodInvalidError,
    ClusterError,
)
"""The classes of all refusals; each has the `status` of the review's answer."""


def quoted(text: str) -> str:
    """Return a text of a pod in quotes, as Go's ``%q`` writes it; it may be shown to anybody."""
    return printable(json.dumps(text[:300], ensure_ascii=False))
