"""Identities: accounts of domains as this host holds them, each got once for all its leases."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar

from credspec.agent.domain_session import Acquisition, DomainSession
from credspec.agent.events import Event, emit
from credspec.agent.refresh_schedule import RefreshSchedule, Spread
from credspec.directory.domain import DomainFacts
from credspec.directory.locator import valid_domain
from credspec.errors import (
    CredspecError,
    NotFoundError,
    NotPermittedError,
    Problem,
    TooManyRequestsError,
    UnreachableError,
    forget_frames,
    internal_error,
)
from credspec.kerberos.ticket_life import is_fit_to_give, state_of
from credspec.kerberos.tickets import Ticket
from credspec.providers.host_account import HostSource

_T = TypeVar("_T")
_DEADLINE_SECONDS: Final = 30.0
_THREADS_PER_DOMAIN: Final = 8
_LINGER_SECONDS: Final = 60.0
_MOST_DOMAINS: Final = 128
# A held identity is given out with controllers that were there so long ago at most.
_CONTROLLERS_AGE_SECONDS: Final = 5.0
_CHECK_WAIT_SECONDS: Final = 4.0
# The time of day is looked at again this often, whatever is planned.
_LONGEST_SLEEP_SECONDS: Final = 60.0
# One may have begun without the keytab, another before the clock was set.
_ACQUISITIONS_FOR_A_HOLDER: Final = 3
# After the next password is there, and before it is in force (five-minute rule).
_KEYTAB_SECONDS: Final = (10.0, 200.0)

_spread: Final = random.SystemRandom().uniform

SessionKey = tuple[str, HostSource | None]
"""A domain, and what this host logs on to it with."""


@dataclass(frozen=True, slots=True)
class IdentityName:
    """Names an identity: account without ``$`` and domain, both in lower case.

    `source` is what the host logs on with to read the password, None for the machine identity: what
    one may read another may not.
    """

    account: str
    domain: str
    source: HostSource | None = None

    def __str__(self) -> str:
        name = f"{self.account}@{self.domain}"
        return name if self.source is None else f"{name} ({self.source})"

    @property
    def session(self) -> SessionKey:
        """The key of the session that acquires it."""
        return self.domain, self.source


@dataclass(slots=True)
class Identity:
    """An account as this host holds it.

    Its leases' tickets are good from `start` to `end`. `ticket` is None for an identity that was
    adopted from an earlier run and not acquired since; so is `password_due`, the time at which the
    domain said to ask for the password again. `keytab` is there while a holder wants it, and
    `keytab_due` is when another one must be made. `refusal` is what the directory or the KDC said
    since the ticket was got, if they would give no other: then nobody else is given this one.
    """

    name: IdentityName
    start: datetime
    end: datetime
    ticket: Ticket | None = None
    password_due: datetime | None = None
    keytab: bytes | None = field(default=None, repr=False)
    keytab_due: datetime | None = None
    kdc_addresses: tuple[str, ...] = ()
    holders: set[str] = field(default_factory=set)
    last_error: CredspecError | None = None
    refusal: CredspecError | None = None

    def is_fit(self, now: datetime) -> bool:
        """Return whether its ticket may be given to a container now."""
        return self.ticket is not None and is_fit_to_give(self.start, self.end, now)

    def take(self, acquired: Acquisition, kdc_addresses: tuple[str, ...]) -> None:
        """Replace the ticket by a new one."""
        self.ticket = acquired.ticket
        self.start, self.end = acquired.ticket.start, acquired.ticket.end
        self.password_due = acquired.password_due
        self.keytab, self.keytab_due = acquired.keytab, acquired.keytab_due
        self.kdc_addresses = kdc_addresses
        self.last_error = self.refusal = None


class _Domain:
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
        # How many accounts have got their tickets.
        self.answers = 0
        self.asking: asyncio.Task[DomainFacts] | None = None
        self._threads = ThreadPoolExecutor(
            _THREADS_PER_DOMAIN, thread_name_prefix=f"domain-{session.domain}"
        )

    async def run(self, call: Callable[[], _T]) -> _T:
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
        except Exception as error:  # noqa: BLE001 - the caller is told, and it is tried again
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
        others = (self.keeper, self.controllers_check, self.asking)
        return [*self.refreshing.values(), *(task for task in others if task is not None)]

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.session.close()


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


class Identities:
    """All identities of this host.

    `open_session` makes the session of a domain and a source of the host identity; `renewed` is
    awaited after each refresh, to give the new ticket to the leases. Clock, sleep and chance can be
    replaced.
    """

    def __init__(
        self,
        open_session: Callable[[str, HostSource | None], DomainSession],
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
        self._domains: dict[SessionKey, _Domain] = {}
        self._held: dict[IdentityName, Identity] = {}
        self._keytab_holders: defaultdict[IdentityName, set[str]] = defaultdict(set)
        self._acquiring: dict[IdentityName, asyncio.Task[None]] = {}
        self.acquisitions = 0
        self.failures = 0

    def held(self) -> list[Identity]:
        """Return the identities held now, in the order of their names."""
        return sorted(self._held.values(), key=lambda i: str(i.name))

    def get(self, name: IdentityName) -> Identity | None:
        """Return an identity that is held, None if it is not."""
        return self._held.get(name)

    def domains(self) -> list[DomainStatus]:
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
            for (name, source), domain in sorted(self._domains.items(), key=_domain_and_source)
        ]

    def refresh_at(self, name: IdentityName) -> datetime | None:
        """Return when an identity is to be acquired again, None while that is under way."""
        domain = self._domains.get(name.session)
        return None if domain is None else domain.schedule.planned(name)

    async def facts(
        self, domain: str, source: HostSource | None = None, *, again: bool = False
    ) -> DomainFacts:
        """Return a domain's facts as they are known, or with `again` as it says now.

        However many ask at once, the domain is asked once. Raises as `DomainSession.facts`.
        """
        of_domain = self._domain((domain, source))
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

    async def _ask_facts(self, of_domain: _Domain, source: HostSource | None) -> DomainFacts:
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
            self._close_soon((session.domain, source))
            raise
        since, of_domain.unreached_since = of_domain.unreached_since, None
        if of_domain.outage_since is None:
            of_domain.last_error = None
            if since is not None:
                emit(Event.DOMAIN_REACHED, domain=session.domain, since=since.isoformat())
        return facts

    async def domain_named(self, name: str, domain: str, source: HostSource | None) -> str:
        """Return the DNS name of a domain as another one knows it.

        Raises as `DomainSession.domain_named`.
        """
        of_domain = self._domain((domain, source))
        return await of_domain.run(lambda: of_domain.session.domain_named(name))

    async def hold(self, name: IdentityName, holder: str, *, keytab: bool = False) -> Identity:
        """Return an identity with its ticket, for a holder; if need be it is acquired.

        That is if none is held; if the ticket has a quarter of its lifetime left or less, or starts
        in the future; or if the domain has refused another one since. With `keytab` it has a keytab
        too, until the last holder who wanted one lets go of it.

        However many ask at once, the directory and the KDC are asked once.

        Raises:
            CredspecError: of the step that failed, with `ticket-unfit` for a ticket that is held
                and cannot be given; the holder then holds nothing new.
        """
        if keytab:
            self._keytab_holders[name].add(holder)
        try:
            identity = await self._acquired(name, keytab=keytab)
        except BaseException:
            self._let_go_of_keytab(name, holder)
            self._close_soon(name.session)
            raise
        identity.holders.add(holder)
        await self._check_controllers_before_use(self._domain(name.session))
        return identity

    def sessions_in_use(self) -> list[SessionKey]:
        """Return the sessions whose identities are held."""
        return list(dict.fromkeys(name.session for name in self._held))

    async def follow_controllers(self, key: SessionKey) -> None:
        """Make sure that what containers are told of domain controllers is true.

        If one of those named to containers is gone, controllers are located again and all leases
        of the session's identities are told. Does nothing while no controller can be located.
        """
        await asyncio.shield(self._controllers_check(self._domain(key)))

    async def _check_controllers_before_use(self, domain: _Domain) -> None:
        """Check the controllers unless that was done just now, but do not wait for it for long."""
        age = asyncio.get_running_loop().time() - domain.controllers_checked_at
        if domain.session.controllers and age > _CONTROLLERS_AGE_SECONDS:
            await asyncio.wait([self._controllers_check(domain)], timeout=_CHECK_WAIT_SECONDS)

    def _controllers_check(self, domain: _Domain) -> asyncio.Task[None]:
        """Return the check under way, else start one."""
        if domain.controllers_check is None or domain.controllers_check.done():
            domain.controllers_check = asyncio.create_task(self._check_controllers(domain))
        return domain.controllers_check

    async def _check_controllers(self, domain: _Domain) -> None:
        try:
            addresses = await domain.run(domain.session.follow_controllers)
        except CredspecError:
            # What containers were told stays; the schedule reports the outage.
            return
        finally:
            domain.controllers_checked_at = asyncio.get_running_loop().time()
        told = [
            identity
            for name, identity in self._held.items()
            if self._domains.get(name.session) is domain and identity.kdc_addresses != addresses
        ]
        for identity in told:
            identity.kdc_addresses = addresses
            await self._renewed(identity)

    async def _acquired(self, name: IdentityName, *, keytab: bool) -> Identity:
        for _ in range(_ACQUISITIONS_FOR_A_HOLDER):
            identity = self._held.get(name)
            if identity is not None and self._can_be_given(identity, keytab=keytab):
                return identity
            # One whose time has come is acquired already; that it failed is not told here.
            task = self._acquiring.get(name) or self._domain(name.session).refreshing.get(name)
            if task is None:
                task = asyncio.create_task(self._acquire_wanted(name))
                self._acquiring[name] = task
                task.add_done_callback(lambda _: self._acquiring.pop(name, None))
            failure: CredspecError | None = None
            try:
                # Shielded: one impatient caller must not cancel the acquisition of the others.
                await asyncio.shield(task)
            except CredspecError as error:
                problems = dict.fromkeys((*error.problems, *self._why_not_given(name)))
                failure = type(error)(*problems)
            finally:
                # Its error leads to this frame, which must not lead back to it.
                del task
            if failure is not None:
                try:
                    raise failure
                finally:
                    del failure
        identity = self._held.get(name)
        if identity is not None and self._can_be_given(identity, keytab=keytab):
            return identity
        raise NotPermittedError.of(
            "ticket-unfit",
            "the domain gives tickets that cannot be used"
            + "".join(f": {problem.found}" for problem in self._why_not_given(name)),
            where=f"identity {name.account}@{name.domain}",
            expected="more than a quarter of its lifetime left, and no start in the future",
            remedy="compare this host's clock with the domain controllers', and look at the "
            "lifetime of tickets in the domain's policies",
        )

    def _can_be_given(self, identity: Identity, *, keytab: bool) -> bool:
        return (
            identity.is_fit(self._now())
            and identity.refusal is None
            and not (keytab and identity.keytab is None)
        )

    def _why_not_given(self, name: IdentityName) -> tuple[Problem, ...]:
        """Return why the ticket that is held is given to nobody; nothing if none is held."""
        identity, now = self._held.get(name), self._now()
        if identity is None or identity.ticket is None:
            return ()
        refused = identity.refusal.problems if identity.refusal is not None else ()
        if identity.is_fit(now):
            return refused
        return (
            *refused,
            Problem(
                code="ticket-unfit",
                found=f"the ticket that is held {state_of(identity.start, identity.end, now)}",
                where=f"identity {name.account}@{name.domain}",
                expected="more than a quarter of its lifetime left, and no start in the future",
            ),
        )

    def adopt(
        self,
        name: IdentityName,
        holder: str,
        *,
        start: datetime,
        end: datetime,
        tickets_in_place: bool,
        keytab_due: datetime | None = None,
    ) -> None:
        """Take an identity over whose ticket, from an earlier run, its holder still has.

        `keytab_due` is when its keytab must be made again, None if it has none.

        Nobody is asked now: it is acquired again in its turn, or at once if a ticket is missing.
        """
        domain = self._domain(name.session)
        identity = self._held.get(name)
        if identity is None:
            identity = self._held[name] = Identity(name, start, end)
        # The holder whose ticket ends first decides.
        identity.start, identity.end = min(start, identity.start), min(end, identity.end)
        identity.holders.add(holder)
        now = self._now()
        if len(identity.holders) == 1 or end <= identity.end:
            domain.schedule.add(name, start=identity.start, end=identity.end, now=now)
        if not tickets_in_place:
            domain.schedule.hasten(name, now)
        if keytab_due is not None:
            self._keytab_holders[name].add(holder)
            identity.keytab_due = min(keytab_due, identity.keytab_due or keytab_due)
        self._make_keytab_in_time(domain, identity)
        domain.changed.set()

    def release(self, name: IdentityName, holder: str) -> None:
        """Let go of an identity; its ticket is dropped a minute after the last holder's release.

        The minute saves the domain a read and a ticket for each of many short containers in a row.
        """
        identity = self._held.get(name)
        if identity is None:
            return
        identity.holders.discard(holder)
        self._let_go_of_keytab(name, holder)
        if not identity.holders:
            asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._drop_unheld, identity)

    def _let_go_of_keytab(self, name: IdentityName, holder: str) -> None:
        holders = self._keytab_holders.get(name)
        if holders is None:
            return
        holders.discard(holder)
        if not holders:
            del self._keytab_holders[name]
            if name in self._held:
                self._held[name].keytab = self._held[name].keytab_due = None

    def _make_keytab_in_time(self, domain: _Domain, identity: Identity) -> None:
        if identity.keytab_due is not None:
            delay = timedelta(seconds=self._spread(*_KEYTAB_SECONDS))
            domain.schedule.hasten(identity.name, identity.keytab_due + delay)

    def _drop_unheld(self, identity: Identity) -> None:
        if identity.holders or self._held.get(identity.name) is not identity:
            return
        domain = self._domain(identity.name.session)
        domain.schedule.remove(identity.name)
        domain.changed.set()
        del self._held[identity.name]
        emit(Event.IDENTITY_DROPPED, identity=str(identity.name))
        self._close_unused(identity.name.session)

    async def refresh(self, name: IdentityName) -> None:
        """Acquire a held identity now, and give its ticket to its leases.

        Raises:
            CredspecError: of the step that failed; what was held stays.
        """
        identity = self._held.get(name)
        if identity is None:
            return
        domain = self._domain(name.session)
        acquired, addresses = await self._acquire(domain, name)
        if self._held.get(name) is identity:
            await self._replace(domain, identity, acquired, addresses)
            domain.changed.set()

    def clock_changed(self) -> None:
        """Plan all again after the clock was set or the host slept, or time has passed unseen."""
        for domain in self._domains.values():
            domain.schedule.plan_again(self._now())
            domain.changed.set()
        for identity in self._held.values():
            self._make_keytab_in_time(self._domain(identity.name.session), identity)

    def _close_soon(self, key: SessionKey) -> None:
        if key[1] is not None:
            asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._close_unused, key)

    def _close_unused(self, key: SessionKey) -> None:
        """Close the session of a provided host account that nobody needs any more."""
        if key[1] is not None:
            self._close_if_unused(key, self._used())

    def _used(self) -> set[SessionKey]:
        return {name.session for name in (*self._held, *self._acquiring)}

    def _close_if_unused(self, key: SessionKey, used: set[SessionKey]) -> None:
        domain = self._domains.get(key)
        if domain is None or domain.calls or key in used:
            return
        del self._domains[key]
        for task in domain.tasks():
            task.cancel()
        domain.close()

    def _make_room(self) -> None:
        """Let the sessions of many domains, which specs can name at will, not take all threads.

        Raises:
            TooManyRequestsError: `domains-too-many`.
        """
        if len(self._domains) < _MOST_DOMAINS:
            return
        used = self._used()
        for key in list(self._domains):
            self._close_if_unused(key, used)
        if len(self._domains) >= _MOST_DOMAINS:
            raise TooManyRequestsError.of(
                "domains-too-many",
                f"{_MOST_DOMAINS} domains are in use",
                where="agent",
                remedy="try again when fewer are asked",
            )

    async def close(self) -> None:
        """Stop all refreshing and close all connections."""
        tasks: list[asyncio.Task[Any]] = [*self._acquiring.values()]
        for domain in self._domains.values():
            tasks += domain.tasks()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for domain in self._domains.values():
            domain.close()

    def _domain(self, key: SessionKey) -> _Domain:
        name, source = valid_domain(key[0]), key[1]
        if (name, source) not in self._domains:
            self._make_room()
            made = _Domain(self._open_session(name, source), self._spread)
            self._domains[name, source] = made
            made.keeper = asyncio.create_task(self._keep_fresh(made))
        return self._domains[name, source]

    async def _acquire_wanted(self, name: IdentityName) -> None:
        """Acquire an identity that somebody waits for."""
        domain = self._domain(name.session)
        acquired, addresses = await self._acquire(domain, name)
        identity = self._held.get(name)
        if identity is None:
            identity = self._held[name] = Identity(name, acquired.ticket.start, acquired.ticket.end)
            identity.take(acquired, addresses)
            domain.schedule.reached(self._now())
            domain.schedule.add(name, start=identity.start, end=identity.end, now=self._now())
            self._make_keytab_in_time(domain, identity)
        else:
            await self._replace(domain, identity, acquired, addresses)
        domain.changed.set()

    async def _replace(
        self, domain: _Domain, identity: Identity, acquired: Acquisition, addresses: tuple[str, ...]
    ) -> None:
        identity.take(acquired, addresses)
        domain.schedule.succeeded(
            identity.name, start=identity.start, end=identity.end, now=self._now()
        )
        self._make_keytab_in_time(domain, identity)
        await self._renewed(identity)

    async def _acquire(
        self, domain: _Domain, name: IdentityName
    ) -> tuple[Acquisition, tuple[str, ...]]:
        """Acquire and tell the schedule of a failure."""
        try:
            acquire = domain.session.acquire
            if name in self._keytab_holders:
                acquire = domain.session.acquire_with_keytab
            acquired = await domain.run(lambda: acquire(name.account))
        except CredspecError as error:
            self.failures += 1
            detached = error.detached()
            domain.last_error = detached
            held = self._held.get(name)
            if held is not None:
                held.last_error = detached
                if isinstance(error, (NotPermittedError, NotFoundError)):
                    held.refusal = detached
            unreachable = isinstance(error, UnreachableError)
            was_reached = domain.schedule.outage_since is None
            domain.schedule.failed(name, self._now(), unreachable=unreachable)
            if unreachable and was_reached:
                emit(Event.DOMAIN_UNREACHABLE, domain=name.domain, error=str(error))
            raise
        self.acquisitions += 1
        domain.answers += 1
        domain.controllers_checked_at = asyncio.get_running_loop().time()
        since, domain.unreached_since = domain.outage_since, None
        if since is not None:
            emit(Event.DOMAIN_REACHED, domain=name.domain, since=since.isoformat())
        domain.last_error = None
        addresses = tuple(a for dc in domain.session.controllers for a in dc.addresses)
        emit(Event.TICKET_ACQUIRED, identity=str(name), end=acquired.ticket.end.isoformat())
        return acquired, addresses

    async def _keep_fresh(self, domain: _Domain) -> None:
        while True:
            try:
                seconds = self._start_due(domain)
            except Exception as error:  # noqa: BLE001 - its identities must be refreshed all the same
                emit(Event.INTERNAL_ERROR, domain=domain.session.domain, error=type(error).__name__)
                seconds = _LONGEST_SLEEP_SECONDS
            await self._first_of(domain.changed, seconds)

    def _start_due(self, domain: _Domain) -> float:
        """Start what is due now; return in how many seconds to look again."""
        for name in domain.schedule.due(self._now()):
            task = asyncio.create_task(self._refresh(domain, name))
            domain.refreshing[name] = task
            task.add_done_callback(partial(domain.refreshed, name))
        domain.changed.clear()
        when = domain.schedule.next_time()
        if when is None:
            return _LONGEST_SLEEP_SECONDS
        return min(max(0.0, (when - self._now()).total_seconds()), _LONGEST_SLEEP_SECONDS)

    async def _first_of(self, changed: asyncio.Event, seconds: float) -> None:
        waits = [
            asyncio.ensure_future(changed.wait()),
            asyncio.ensure_future(self._sleep(seconds)),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _refresh(self, domain: _Domain, name: IdentityName) -> None:
        """Acquire an identity again whose time has come, and give its ticket to its leases."""
        identity = self._held.get(name)
        if identity is None:
            domain.schedule.remove(name)
            return
        wanted = self._acquiring.get(name)
        if wanted is not None:
            # Somebody waits for it already, and the schedule is told of what comes of that.
            await asyncio.wait([wanted])
            return
        try:
            acquired, addresses = await self._acquire(domain, name)
            await self._replace(domain, identity, acquired, addresses)
        except CredspecError as error:
            emit(Event.REFRESH_FAILED, identity=str(name), error=str(error))
        except Exception as error:  # noqa: BLE001 - nobody waits for it; it is tried again
            identity.last_error = internal_error(error, f"identity {name}")
            emit(Event.REFRESH_FAILED, identity=str(name), error=str(identity.last_error))
            domain.schedule.failed(name, self._now(), unreachable=False)
        finally:
            domain.changed.set()


def _domain_and_source(item: tuple[SessionKey, _Domain]) -> tuple[str, str]:
    (domain, source), _ = item
    return domain, "" if source is None else str(source)
