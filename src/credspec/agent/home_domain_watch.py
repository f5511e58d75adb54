"""Whether the host's own domain serves this host, checked before a container needs it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final

from credspec.agent.identities import Identities
from credspec.errors import CredspecError

# A fleet comes up together after a power failure, and its hosts must not ask together.
_FIRST_SECONDS: Final = (0.0, 2.0)
_FIRST_RETRY_SECONDS: Final = 5.0
_LONGEST_RETRY_SECONDS: Final = 60.0
_WELL_SECONDS: Final = 300.0
_SPREAD: Final = (0.5, 1.5)
_CHANCE: Final = random.SystemRandom()


class HomeDomainWatch:
    """Logs on to the host's own domain in the background, now and again and again.

    A look costs one search on the connection that leases use, or a logon if there is none. After a
    failure the next one comes after about 5 s, then twice as long each time up to about a minute;
    while all is well after about five minutes. Sleep and chance can be replaced.
    """

    def __init__(
        self,
        identities: Identities,
        domain: str,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        spread: Callable[[float, float], float] = _CHANCE.uniform,
    ) -> None:
        self._identities = identities
        self._domain = domain
        self._sleep = sleep
        self._spread = spread
        self._looked = asyncio.Event()
        self._error: CredspecError | None = None

    async def run(self) -> None:
        """Look again and again until cancelled."""
        await self._sleep(self._spread(*_FIRST_SECONDS))
        pause = _FIRST_RETRY_SECONDS
        while True:
            try:
                await self._identities.facts(self._domain, again=True)
            except CredspecError as error:
                self._error = error.detached()
                seconds, pause = pause, min(2 * pause, _LONGEST_RETRY_SECONDS)
            else:
                self._error = None
                seconds, pause = _WELL_SECONDS, _FIRST_RETRY_SECONDS
            self._looked.set()
            await self._sleep(seconds * self._spread(*_SPREAD))

    async def hindrance(self, seconds: float) -> str | None:
        """Return why the domain does not serve this host, None if it does.

        Waits at most so many `seconds` for the first look to end. What the agent met for a lease
        since counts as well.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._looked.wait()
        except TimeoutError:
            return f"domain {self._domain} has not answered yet since the agent started"
        status = next(
            (s for s in self._identities.domains() if (s.domain, s.source) == (self._domain, "")),
            None,
        )
        if status is not None and status.outage_since is not None:
            reason = "" if status.last_error is None else f": {status.last_error}"
            since = f"{status.outage_since:%Y-%m-%d %H:%M:%S} UTC"
            return f"domain {self._domain} does not answer since {since}{reason}"
        if status is not None and status.controller is not None:
            # A lease was made since the last look.
            return None
        return None if self._error is None else f"domain {self._domain}: {self._error}"
