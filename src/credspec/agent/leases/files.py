"""Work on the files of leases, which those of users may never finish."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

from credspec.agent.blocking_calls import BlockingCalls
from credspec.agent.leases.home import Home, HomeRecord
from credspec.agent.leases.homes import Homes
from credspec.errors import CredspecError

FILES_SECONDS: Final = 5.0
"""How long work on a user's files may take while others wait for it."""

_T = TypeVar("_T")


class LeaseFiles:
    """Works on leases' homes; `calls` has a thread for each user whose files may not answer."""

    def __init__(self, homes: Homes, calls: BlockingCalls[int | None]) -> None:
        self.homes = homes
        self._calls = calls

    async def run(self, home: Home, call: Callable[[], _T], seconds: float = FILES_SECONDS) -> _T:
        """Call what works on a home, and return what it returns.

        Raises:
            CredspecError: `call-timeout`, `calls-waiting`; and what the call raises.
        """
        if home.user is None:
            return call()
        return await self._calls.run(home.user, call, seconds, f"files of user {home.user}")

    def wipe(self, record: HomeRecord) -> asyncio.Future[None] | None:
        """Remove a lease's files; of a user's that is begun, and the future says when it ended."""
        home = self.homes.of(record)
        if home.user is None:
            home.wipe()
            return None
        with suppress(CredspecError):
            # After whatever is being written there.
            return self._calls.submit(home.user, home.wipe)
        return None
