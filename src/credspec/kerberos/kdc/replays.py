"""What was sent before: authenticators within the skew of clocks (RFC 4120 3.2.3)."""

from __future__ import annotations

from datetime import datetime
from hashlib import blake2b
from typing import Final

from credspec.kerberos.ticket_life import CLOCK_SKEW

_DIGEST: Final = 16
# An authenticator is taken from five minutes before its time to five minutes after it.
_WINDOW: Final = 2 * CLOCK_SKEW


class Replays:
    """The authenticators of one lease; as many as its rate lets through are kept, for 20 minutes.

    Ciphertexts are compared, as MIT does: each has random bytes of its own.
    """

    def __init__(self) -> None:
        self._since: datetime | None = None
        self._new: set[bytes] = set()
        self._old: set[bytes] = set()

    def is_new(self, cipher: bytes, now: datetime) -> bool:
        """Return whether an authenticator came for the first time, and remember it."""
        if self._since is None or abs(now - self._since) >= _WINDOW:
            self._old, self._new, self._since = self._new, set(), now
        digest = blake2b(cipher, digest_size=_DIGEST).digest()
        if digest in self._new or digest in self._old:
            return False
        self._new.add(digest)
        return True
