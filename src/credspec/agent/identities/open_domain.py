"""A domain with a session: the threads that may wait for it, and what is under way there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from credspec.agent.identities.identity import IdentityName
from credspec.agent.identities.refresh_schedule import RefreshSchedule, Spread
from credspec.directory.domain import DomainFacts
from credspec.errors import CredspecError, UnreachableError, forget_frames, internal_error
from credspec.service.events import Event, emit
from credspec.session.domain_session import DomainSession

_T = TypeVar("_T")
_DEADLINE_SECONDS: Final = 30.0
_THREADS_PER_DOMAIN: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainStatus:
    """A domain as this host sees it now.

    `controller` is the one in use, `latency` how long its last answer to a search took, in seconds;
    both None while there is no connection. `outage_since` tells since when it does not answer.
    `source` names what the host logs on with, empty for the machine identity.
    """

    domain: str
    source: str = ""
    controller: str | None
    latency: float | None
    outage_since: datetime | None
    last_error: CredspecError | None


class OpenDomain:
    """A domain's session and the threads that may wait for it; one domain never stalls another."""

    def __init__(self, session: DomainSession, spread: Spread) -> None:
        self.session = session
        self.calls = 0
        self.schedule: RefreshSchedule[IdentityName] = RefreshSchedule(spread)
        self.changed = asyncio.Event()
        self.keeper: asyncio.Task[None] | None = None
        self.refreshing: dict[IdentityName, asyncio.Task[None]] = {}
        self.last_error: CredspecError | None = None
        self.controllers_check: asyncio.Task[None] | None = None
        self.controllers_checked_at = 0.0
        self.unreached_since: datetime | None = None
        # How many tickets were obtained.
        self.answers = 0
        self.asking: asyncio.Task[DomainFacts] | None = None
        self._threads = ThreadPoolExecutor(
            _THREADS_PER_DOMAIN, thread_name_prefix=f"domain-{session.domain}"
        )

    async def run(self, call: Callable[[], _T]) -> _T:
        """Return what a call to the session returns, or raise its error without its frames.

        Raises:
            UnreachableError: `domain-timeout`.
        """
        loop = asyncio.get_running_loop()
        self.calls += 1
        failure: CredspecError
        try:
            # Not wait_for: until Python 3.12 it can swallow a cancellation.
            async with asyncio.timeout(_DEADLINE_SECONDS):
                return await loop.run_in_executor(self._threads, call)
        except TimeoutError:
            failure = UnreachableError.of(
                "domain-timeout",
                f"no answer within {_DEADLINE_SECONDS:.0f} s",
                where=f"domain {self.session.domain}",
                remedy="the domain controllers accept connections but do not answer",
            )
        except CredspecError as error:
            failure = error.detached()
            forget_frames(error)
        except Exception as error:  # noqa: BLE001 - the caller is answered, and it is tried again
            emit(Event.INTERNAL_ERROR, domain=self.session.domain, error=type(error).__name__)
            failure = internal_error(error, f"domain {self.session.domain}")
            forget_frames(error)
        finally:
            self.calls -= 1
        # Not from inside: the frames of the thread hold passwords.
        try:
            raise failure
        finally:
            del failure

    @property
    def outage_since(self) -> datetime | None:
        """Since when it does not answer, be it for an identity or before there was any."""
        return self.schedule.outage_since or self.unreached_since

    def asked(self, task: asyncio.Task[DomainFacts]) -> None:
        """Forget a question that has ended, whose error all that waited have."""
        self.asking = None
        if not task.cancelled():
            task.exception()

    def refreshed(self, name: IdentityName, task: asyncio.Task[None]) -> None:
        """Forget a refresh that has ended."""
        if self.refreshing.get(name) is task:
            del self.refreshing[name]

    def tasks(self) -> list[asyncio.Task[Any]]:
        """Return what is under way."""
        others = (self.keeper, self.controllers_check, self.asking)
        return [*self.refreshing.values(), *(task for task in others if task is not None)]

    def close(self) -> None:
        """Let go of the threads and of the session."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.session.close()
