"""Services as clients ask for them, and the errors by which requests are refused."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

KRBTGT: Final = "krbtgt"


class KdcErrorCode(IntEnum):
    """Errors of a KDC (RFC 4120 7.5.9)."""

    UNKNOWN_SERVICE = 7
    POLICY = 12
    BAD_OPTION = 13
    ETYPE_UNSUPPORTED = 14
    PADATA_UNSUPPORTED = 16
    SERVICE_UNAVAILABLE = 29
    BAD_INTEGRITY = 31
    TICKET_EXPIRED = 32
    REPEATED = 34
    BAD_MATCH = 36
    CLOCK_SKEW = 37
    BAD_VERSION = 39
    MESSAGE_TYPE = 40
    MODIFIED = 41
    INAPPROPRIATE_CHECKSUM = 50
    RESPONSE_TOO_BIG = 52
    GENERIC = 60
    FIELD_TOO_LONG = 61
    WRONG_REALM = 68


class AskedService(NamedTuple):
    """A service as a client named it: the parts of its name, their type, and the realm asked."""

    parts: tuple[str, ...]
    name_type: int
    realm: str

    def __str__(self) -> str:
        return f"{'/'.join(self.parts)}@{self.realm}"

    @property
    def spn(self) -> str:
        """The name without its realm."""
        return "/".join(self.parts)

    @property
    def is_krbtgt(self) -> bool:
        """Whether it names a KDC."""
        return self.parts[0].lower() == KRBTGT


NO_SERVICE: Final = AskedService(("krbtgt",), 0, "UNKNOWN")
"""What an error names that answers something unreadable."""


class RefusedRequestError(Exception):
    """A request is refused: with an error's code, the service if it was read, and why in words."""

    def __init__(self, code: KdcErrorCode, reason: str, service: AskedService = NO_SERVICE) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.service = service
