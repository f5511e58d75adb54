"""The domains that this host has sessions with, opened as they are needed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from datetime import datetime
from typing import Any, Final, TypeVar

from credspec.agent.identities.identity import SessionKey
from credspec.agent.identities.open_domain import DomainStatus, OpenDomain
from credspec.agent.identities.refresh_schedule import Spread
from credspec.agent.identities.table import IdentityTable
from credspec.directory.domain import DomainFacts
from credspec.directory.domain_names import valid_domain
from credspec.errors import CredspecError, TooManyRequestsError, UnreachableError
from credspec.providers.provider import HostSource
from credspec.service.events import Event, emit
from credspec.session.domain_session import DomainSession

_LINGER_SECONDS: Final = 60.0
_MOST_DOMAINS: Final = 128

_T = TypeVar("_T")


class Domains:
    """Sessions by domain and by what the host logs on with.

    `keep_fresh` runs for each of them as long as it is open.
    """

    def __init__(
        self,
        open_session: Callable[[str, HostSource | None], DomainSession],
        table: IdentityTable,
        keep_fresh: Callable[[OpenDomain], Coroutine[Any, Any, None]],
        *,
        now: Callable[[], datetime],
        spread: Spread,
    ) -> None:
        self._open_session = open_session
        self._table = table
        self._keep_fresh = keep_fresh
        self._now = now
        self._spread = spread
        self._open: dict[SessionKey, OpenDomain] = {}

    def get(self, key: SessionKey) -> OpenDomain:
        """Return a domain, opened if need be.

        Raises:
            UsageError: `domain-name-invalid`.
            TooManyRequestsError: `domains-too-many`.
        """
        known = self._open.get(key)
        if known is not None:
            return known
        name, source = valid_domain(key[0]), key[1]
        if (name, source) not in self._open:
            self._make_room()
            made = OpenDomain(self._open_session(name, source), self._spread)
            self._open[name, source] = made
            made.keeper = asyncio.create_task(self._keep_fresh(made))
        return self._open[name, source]

    def find(self, key: SessionKey) -> OpenDomain | None:
        """Return a domain if it is open."""
        return self._open.get(key)

    def sessions(self) -> list[SessionKey]:
        """Return the domains and sources of all that are open."""
        return list(self._open)

    def all(self) -> Iterable[OpenDomain]:
        """Return all that are open."""
        return self._open.values()

    def statuses(self) -> list[DomainStatus]:
        """Return how the domains do that were asked so far, by name."""
        return [
            DomainStatus(
                domain=name,
                source="" if source is None else str(source),
                controller=domain.session.controller.host if domain.session.controller else None,
                latency=domain.session.latency,
                outage_since=domain.outage_since,
                last_error=domain.last_error,
            )
            for (name, source), domain in sorted(self._open.items(), key=_domain_and_source)
        ]

    async def facts(
        self, domain: str, source: HostSource | None = None, *, again: bool = False
    ) -> DomainFacts:
        """Return a domain's facts as they are known, or with `again` as it says now.

        However many ask at once, the domain is asked once. Raises as `DomainSession.facts`.
        """
        of_domain = self.get((domain, source))
        known = of_domain.session.known_facts
        if known is not None and not again:
            return known
        task = of_domain.asking
        if task is None:
            task = of_domain.asking = asyncio.create_task(self._ask_facts(of_domain, source))
            task.add_done_callback(of_domain.asked)
        failure: CredspecError
        try:
            # Shielded: one impatient caller must not cancel what the others wait for.
            return await asyncio.shield(task)
        except CredspecError as error:
            failure = error.detached()
        finally:
            # Its error leads to this frame, which must not lead back to it.
            del task
        try:
            raise failure
        finally:
            del failure

    async def domain_named(self, name: str, domain: str, source: HostSource | None) -> str:
        """Return the DNS name of a domain as another one knows it.

        Raises as `DomainSession.domain_named`.
        """
        of_domain = self.get((domain, source))
        return await of_domain.run(lambda: of_domain.session.domain_named(name))

    async def _ask_facts(self, of_domain: OpenDomain, source: HostSource | None) -> DomainFacts:
        session = of_domain.session
        call = session.facts if session.known_facts is None else session.read_facts
        answers = of_domain.answers
        try:
            facts = await of_domain.run(call)
        except CredspecError as error:
            if of_domain.answers != answers and of_domain.outage_since is None:
                raise  # it has answered somebody else since
            of_domain.last_error = error.detached()
            if isinstance(error, UnreachableError) and of_domain.outage_since is None:
                of_domain.unreached_since = self._now()
                emit(Event.DOMAIN_UNREACHABLE, domain=of_domain.session.domain, error=str(error))
            self.close_soon((session.domain, source))
            raise
        since, of_domain.unreached_since = of_domain.unreached_since, None
        if of_domain.outage_since is None:
            of_domain.last_error = None
            if since is not None:
                emit(Event.DOMAIN_REACHED, domain=session.domain, since=since.isoformat())
        return facts

    def in_a_while(self, call: Callable[[_T], None], argument: _T) -> None:
        """Call in a minute, for what is kept so long although nobody uses it any more."""
        asyncio.get_running_loop().call_later(_LINGER_SECONDS, call, argument)

    def close_soon(self, key: SessionKey) -> None:
        """Close the session of a provided host account in a while, if nobody needs it then."""
        if key[1] is not None:
            self.in_a_while(self.close_unused, key)

    def close_unused(self, key: SessionKey) -> None:
        """Close the session of a provided host account that nobody needs any more."""
        if key[1] is not None:
            self._close_if_unused(key, self._table.sessions_wanted())

    async def close(self, others: Iterable[asyncio.Task[None]] = ()) -> None:
        """Stop all that is under way, and `others`, and close all sessions."""
        tasks: list[asyncio.Task[Any]] = [*others]
        for domain in self._open.values():
            tasks += domain.tasks()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for domain in self._open.values():
            domain.close()

    def _close_if_unused(self, key: SessionKey, used: set[SessionKey]) -> None:
        domain = self._open.get(key)
        if domain is None or domain.calls or key in used:
            return
        del self._open[key]
        for task in domain.tasks():
            task.cancel()
        domain.close()

    def _make_room(self) -> None:
        """Let the sessions of many domains, which specs can name at will, not take all threads.

        Raises:
            TooManyRequestsError: `domains-too-many`.
        """
        if len(self._open) < _MOST_DOMAINS:
            return
        used = self._table.sessions_wanted()
        for key in list(self._open):
            self._close_if_unused(key, used)
        if len(self._open) >= _MOST_DOMAINS:
            raise TooManyRequestsError.of(
                "domains-too-many",
                f"{_MOST_DOMAINS} domains are in use",
                where="agent",
                remedy="try again when fewer domains are in use",
            )


def _domain_and_source(item: tuple[SessionKey, OpenDomain]) -> tuple[str, str]:
    (domain, source), _ = item
    return domain, "" if source is None else str(source)
