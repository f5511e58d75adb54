"""How many questions may wait for a provider: so many for each share of it, and for all of it."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Final

from credspec.errors import UnreachableError

_OF_A_SHARE: Final = 8
_OF_A_PROVIDER: Final = 64


class QuestionLimits:
    """Counts the questions that wait; safe to use from several threads.

    A share is what of a provider an input needs, such as the server of a namespace. What hangs
    behind one share keeps no other from its accounts.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: Counter[tuple[str, str]] = Counter()

    def waiting(self) -> int:
        """Return how many questions wait now, for all providers."""
        with self._lock:
            return self._waiting.total()

    def begin(self, provider: str, share: str) -> None:
        """Count a question.

        Raises:
            UnreachableError: `host-account-busy`.
        """
        with self._lock:
            of_all = sum(n for (name, _), n in self._waiting.items() if name == provider)
            of_share = self._waiting[provider, share]
            if of_share >= _OF_A_SHARE or of_all >= _OF_A_PROVIDER:
                raise UnreachableError.of(
                    "host-account-busy",
                    f"{of_share} questions wait for the same, {of_all} for all of it",
                    where=f"provider {provider}",
                    remedy="see whether the service behind it answers",
                )
            self._waiting[provider, share] = of_share + 1

    def end(self, provider: str, share: str) -> None:
        """Count a question no more."""
        with self._lock:
            self._waiting[provider, share] -= 1
            if not self._waiting[provider, share]:
                del self._waiting[provider, share]
