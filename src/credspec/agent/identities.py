"""Identities: accounts of domains as this host holds them, each got once for all its leases."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import structlog

from credspec.agent.domain_session import Acquisition, DomainSession
from credspec.agent.refresh_time import Spread, refresh_time, retry_delay
from credspec.directory.domain import DomainFacts
from credspec.directory.locator import valid_domain
from credspec.errors import CredspecError, UnreachableError

_T = TypeVar("_T")
_DEADLINE_SECONDS: Final = 30.0
_THREADS_PER_DOMAIN: Final = 4
_LINGER_SECONDS: Final = 60.0

_spread: Final = random.SystemRandom().uniform
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class IdentityName:
    """Names an identity: account without ``$`` and domain, both in lower case."""

    account: str
    domain: str

    def __str__(self) -> str:
        return f"{self.account}@{self.domain}"


@dataclass(slots=True)
class Identity:
    """An account as this host holds it, with its ticket and when it is next acquired."""

    name: IdentityName
    acquisition: Acquisition
    kdc_addresses: tuple[str, ...]
    holders: set[str] = field(default_factory=set)
    refresh_at: datetime | None = None
    last_error: CredspecError | None = None
    refresher: asyncio.Task[None] | None = None


class _Domain:
    """A domain's session and the threads that may wait for it; one domain never stalls another."""

    def __init__(self, session: DomainSession) -> None:
        self.session = session
        self.threads = ThreadPoolExecutor(
            _THREADS_PER_DOMAIN, thread_name_prefix=f"domain-{session.domain}"
        )

    async def run(self, call: Callable[[], _T]) -> _T:
        loop = asyncio.get_running_loop()
        try:
            # Not wait_for: until Python 3.12 it can swallow a cancellation.
            async with asyncio.timeout(_DEADLINE_SECONDS):
                return await loop.run_in_executor(self.threads, call)
        except TimeoutError:
            raise UnreachableError.of(
                "domain-timeout",
                f"no answer within {_DEADLINE_SECONDS:.0f} s",
                where=f"domain {self.session.domain}",
                remedy="the domain controllers accept connections but do not answer",
            ) from None

    def close(self) -> None:
        self.threads.shutdown(wait=False, cancel_futures=True)
        self.session.close()


class Identities:
    """All identities of this host.

    `open_session` makes the session of a domain; `renewed` is awaited after each refresh, to give
    the new ticket to the leases. Clock, sleep and chance can be replaced.
    """

    def __init__(
        self,
        open_session: Callable[[str], DomainSession],
        renewed: Callable[[Identity], Awaitable[None]],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        spread: Spread = _spread,
    ) -> None:
        self._open_session = open_session
        self._renewed = renewed
        self._now = now
        self._sleep = sleep
        self._spread = spread
        self._domains: dict[str, _Domain] = {}
        self._held: dict[IdentityName, Identity] = {}
        self._acquiring: dict[IdentityName, asyncio.Task[Identity]] = {}
        self.acquisitions = 0

    def held(self) -> list[Identity]:
        """Return the identities held now, in the order of their names."""
        return sorted(self._held.values(), key=lambda i: str(i.name))

    async def facts(self, domain: str) -> DomainFacts:
        """Return a domain's facts; raises as `DomainSession.facts`."""
        of_domain = self._domain(domain)
        return await of_domain.run(of_domain.session.facts)

    async def hold(self, name: IdentityName, holder: str) -> Identity:
        """Return an identity for a holder, acquiring it if nobody holds it yet.

        However many ask at once, the directory and the KDC are asked once.

        Raises:
            CredspecError: of the step that failed; the holder then holds nothing.
        """
        identity = self._held.get(name)
        while identity is None:
            task = self._acquiring.get(name)
            if task is None:
                task = asyncio.create_task(self._acquire_first(name))
                self._acquiring[name] = task
                task.add_done_callback(lambda _: self._acquiring.pop(name, None))
            # Shielded: one impatient caller must not cancel the acquisition of the others.
            await asyncio.shield(task)
            identity = self._held.get(name)
        identity.holders.add(holder)
        return identity

    def release(self, name: IdentityName, holder: str) -> None:
        """Let go of an identity; its ticket is dropped a minute after the last holder's release.

        The minute saves the domain a read and a ticket for each of many short containers in a row.
        """
        identity = self._held.get(name)
        if identity is None:
            return
        identity.holders.discard(holder)
        if not identity.holders:
            asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._drop_unheld, identity)

    def _drop_unheld(self, identity: Identity) -> None:
        if identity.holders or self._held.get(identity.name) is not identity:
            return
        if identity.refresher is not None:
            identity.refresher.cancel()
        del self._held[identity.name]
        _log.info("identity-dropped", identity=str(identity.name))

    async def close(self) -> None:
        """Stop all refreshing and close all connections."""
        tasks: list[asyncio.Task[Any]] = list(self._acquiring.values())
        tasks += [i.refresher for i in self._held.values() if i.refresher]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for domain in self._domains.values():
            domain.close()

    def _domain(self, domain: str) -> _Domain:
        name = valid_domain(domain)
        if name not in self._domains:
            self._domains[name] = _Domain(self._open_session(name))
        return self._domains[name]

    async def _acquire_first(self, name: IdentityName) -> Identity:
        acquisition, addresses = await self._acquire(name)
        identity = Identity(name, acquisition, addresses)
        self._held[name] = identity
        identity.refresher = asyncio.create_task(self._keep_fresh(identity))
        return identity

    async def _acquire(self, name: IdentityName) -> tuple[Acquisition, tuple[str, ...]]:
        domain = self._domain(name.domain)
        acquisition = await domain.run(lambda: domain.session.acquire(name.account))
        self.acquisitions += 1
        addresses = tuple(a for dc in domain.session.controllers for a in dc.addresses)
        _log.info("ticket-acquired", identity=str(name), end=acquisition.ticket.end.isoformat())
        return acquisition, addresses

    async def _keep_fresh(self, identity: Identity) -> None:
        failures = 0
        while True:
            if failures:
                identity.refresh_at = self._now() + retry_delay(failures, self._spread)
            else:
                acquired = identity.acquisition
                identity.refresh_at = refresh_time(
                    start=acquired.ticket.start,
                    end=acquired.ticket.end,
                    password_due=acquired.read_at + acquired.password.query_interval,
                    spread=self._spread,
                )
            await self._sleep(max(0.0, (identity.refresh_at - self._now()).total_seconds()))
            try:
                identity.acquisition, identity.kdc_addresses = await self._acquire(identity.name)
                await self._renewed(identity)
            except CredspecError as error:
                failures += 1
                identity.last_error = error
                _log.warning(
                    "refresh-failed",
                    identity=str(identity.name),
                    failures=failures,
                    error=str(error),
                )
            else:
                failures = 0
                identity.last_error = None
