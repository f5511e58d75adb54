"""Which service accounts were found to be allowed a credential spec a moment ago.

The replicas of a Deployment ask the same within a second. That a grant is remembered gives nobody
an identity: the CSI driver asks the API server itself for each pod, on its node. Refusals are never
remembered, so that who corrects a Role or an object may try again at once.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

REMEMBERED_SECONDS: Final = 5.0
"""How long a grant is taken for true without asking."""

_MOST: Final = 4096


class RecentGrants:
    """Grants of the last seconds, a bounded number of them.

    `clock` returns seconds that only grow, as `time.monotonic`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends: OrderedDict[tuple[str, str, str], float] = OrderedDict()

    def add(self, namespace: str, account: str, spec: str) -> None:
        """Remember that an account of a namespace may use a spec, which is there and valid."""
        key = (namespace, account, spec)
        self._ends.pop(key, None)
        self._ends[key] = self._clock() + REMEMBERED_SECONDS
        if len(self._ends) > _MOST:
            self._ends.popitem(last=False)

    def holds(self, namespace: str, account: str, spec: str) -> bool:
        """Return whether that was found a moment ago."""
        end = self._ends.get((namespace, account, spec))
        return end is not None and self._clock() < end
