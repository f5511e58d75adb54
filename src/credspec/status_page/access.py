"""Who may see the page: who has the address that the command printed, once."""

from __future__ import annotations

import secrets
import threading
from hmac import compare_digest
from typing import Final

_BYTES: Final = 32


class Access:
    """A token that opens the page once, and the secret path that it leads to.

    The path is the session: unlike a cookie it is not sent to servers on other ports of this host,
    which may be other users'. Both end with the process.
    """

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(_BYTES)
        self._session = secrets.token_urlsafe(_BYTES)
        self._is_used = False
        self._lock = threading.Lock()

    def enter(self, token: str) -> str | None:
        """Use the token up and return the page's path; None if it is wrong, or used up already."""
        is_right = compare_digest(token.encode(), self.token.encode())
        with self._lock:
            if not is_right or self._is_used:
                return None
            self._is_used = True
        return f"/{self._session}/"

    def resource(self, path: str) -> str | None:
        """Return what a path below the secret one names, None if it is not below that."""
        _, session, *rest = path.split("/", 2) if path.count("/") > 1 else ("", "")
        if not rest or not compare_digest(session.encode(), self._session.encode()):
            return None
        return rest[0]
