"""Secrets that are needed for as long as leases last: each in one buffer, wiped at the end.

What names a host account (sources, identities, sessions, their keys in dictionaries, errors) holds
a `KeptSecret` in place of the text. So the text is in memory once, however many leases share it,
and is gone when the last of them ends, whatever still refers to the handle.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from typing import Final
from weakref import WeakValueDictionary

from credspec.errors import NotPermittedError

_key: Final = secrets.token_bytes(32)


def fingerprint(text: str) -> str:
    """Return 64 hexadecimal digits that tell two secrets apart.

    They say nothing of the secret without this process's memory, since their key is made by chance
    at each start.
    """
    data = text.encode("utf-8", "surrogatepass")
    return hmac.new(_key, data, hashlib.sha256).hexdigest()


class KeptSecret:
    """A handle of a secret; handles are equal if their secrets are. Safe to use in any thread."""

    __slots__ = ("__weakref__", "_buffer", "_holders", "_lock", "fingerprint")

    def __init__(self, text: str) -> None:
        self.fingerprint: Final = fingerprint(text)
        self._lock = threading.Lock()
        self._holders: set[str] = set()
        self._buffer = bytearray()

    def reveal(self) -> str:
        """Return the secret, to be used and dropped.

        Raises:
            NotPermittedError: `host-account-forgotten`: nobody holds it any more.
        """
        with self._lock:
            if not self._holders:
                raise NotPermittedError.of(
                    "host-account-forgotten",
                    "the host account of this lease went with the lease",
                    where=f"secret {self}",
                    remedy="make the lease again",
                )
            return self._buffer.decode("utf-8", "surrogatepass")

    def _hold(self, text: str, holder: str) -> None:
        with self._lock:
            if not self._holders:
                self._buffer[:] = text.encode("utf-8", "surrogatepass")
            self._holders.add(holder)

    def _let_go(self, holder: str) -> None:
        with self._lock:
            self._holders.discard(holder)
            if not self._holders:
                # Overwritten first: what is cut off an array keeps its contents.
                self._buffer[:] = bytes(len(self._buffer))
                self._buffer.clear()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeptSecret) and other.fingerprint == self.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __str__(self) -> str:
        return self.fingerprint[:8]

    def __repr__(self) -> str:
        return f"<KeptSecret {self}>"


class KeptSecrets:
    """The secrets that somebody holds; holders are named by texts, such as ids of leases."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[str, KeptSecret] = WeakValueDictionary()
        self._held: dict[str, set[KeptSecret]] = {}

    def keep(self, text: str, holder: str) -> KeptSecret:
        """Return the handle of a secret, which stays for as long as one holder does."""
        made = KeptSecret(text)
        # An earlier handle of the same secret can be used again.
        secret = self._known.setdefault(made.fingerprint, made)
        secret._hold(text, holder)  # noqa: SLF001 - its own module
        self._held.setdefault(holder, set()).add(secret)
        return secret

    def drop(self, holder: str, *, but: KeptSecret | None = None) -> None:
        """Let go of all that a holder has, apart from `but`; wipe what nobody holds any more."""
        held = self._held.pop(holder, set())
        for secret in held - {but}:
            secret._let_go(holder)  # noqa: SLF001 - its own module
        if but in held:
            self._held[holder] = {but}
