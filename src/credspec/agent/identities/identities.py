"""Identities: accounts of domains as this host holds them, each acquired once for all leases."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from credspec.agent.identities.acquisition import Acquirer
from credspec.agent.identities.controllers import ControllerChecks
from credspec.agent.identities.domains import Domains
from credspec.agent.identities.identity import Identity, IdentityName, SessionKey
from credspec.agent.identities.open_domain import DomainStatus, OpenDomain
from credspec.agent.identities.refresh_schedule import Spread
from credspec.agent.identities.table import IdentityTable
from credspec.directory.domain import DomainFacts
from credspec.directory.service_owner import ServiceOwner
from credspec.errors import ClockRefusalError, CredspecError, Problem
from credspec.kerberos.service_credentials import ServiceTicket
from credspec.kerberos.service_names import ServiceName
from credspec.providers.provider import HostSource
from credspec.service.events import Event, emit
from credspec.session.domain_session import DomainSession

# One may have begun without the keytab, another before the clock was set.
_ACQUISITIONS_FOR_A_HOLDER: Final = 3

_spread: Final = random.SystemRandom().uniform


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
        self._now = now
        self._table = IdentityTable()
        self._acquirer = Acquirer(self._table, renewed, now=now, sleep=sleep, spread=spread)
        self._domains = Domains(
            open_session, self._table, self._acquirer.keep_fresh, now=now, spread=spread
        )
        self._controllers = ControllerChecks(self._domains, self._table, renewed)

    @property
    def acquisitions(self) -> int:
        """How many passwords were read that led to a ticket."""
        return self._acquirer.acquisitions

    @property
    def failures(self) -> int:
        """How many acquisitions failed."""
        return self._acquirer.failures

    def held(self) -> list[Identity]:
        """Return the identities held now, in the order of their names."""
        return sorted(self._table.held.values(), key=lambda i: str(i.name))

    def get(self, name: IdentityName) -> Identity | None:
        """Return an identity that is held, None if it is not."""
        return self._table.held.get(name)

    def domains(self) -> list[DomainStatus]:
        """Return how the domains do that were asked so far, by name."""
        return self._domains.statuses()

    def refresh_at(self, name: IdentityName) -> datetime | None:
        """Return when an identity is to be acquired again, None while that is under way."""
        domain = self._domains.find(name.session)
        return None if domain is None else domain.schedule.planned(name)

    async def facts(
        self, domain: str, source: HostSource | None = None, *, again: bool = False
    ) -> DomainFacts:
        """Return a domain's facts, see `Domains.facts`."""
        return await self._domains.facts(domain, source, again=again)

    async def domain_named(self, name: str, domain: str, source: HostSource | None) -> str:
        """Return the DNS name of a domain as another one knows it.

        Raises as `DomainSession.domain_named`.
        """
        return await self._domains.domain_named(name, domain, source)

    def sessions_in_use(self) -> list[SessionKey]:
        """Return the sessions whose identities are held."""
        return self._table.sessions_in_use()

    async def follow_controllers(self, key: SessionKey) -> None:
        """Make sure that what containers know of controllers is true, see `ControllerChecks`."""
        await self._controllers.follow(key)

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
        has_keytab = holder in self._table.keytab_holders.get(name, ())
        if keytab:
            self._table.keytab_holders[name].add(holder)
        try:
            identity = await self._acquired(name, keytab=keytab)
        except BaseException:
            if not has_keytab:
                self._table.let_go_of_keytab(name, holder)
            self._domains.close_soon(name.session)
            raise
        identity.holders.add(holder)
        await self._controllers.check_before_use(name.session)
        return identity

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
        domain = self._domains.get(name.session)
        identity = self._table.held.get(name)
        planned = None if identity is None else (identity.start, identity.end)
        if identity is None:
            identity = self._table.held[name] = Identity(name, start, end)
        # The holder whose ticket ends first decides.
        if (start, end) != planned:
            identity.start, identity.end = min(start, identity.start), min(end, identity.end)
        identity.holders.add(holder)
        # Most leases of an account were given the same ticket: it is planned once for them.
        if planned != (identity.start, identity.end):
            now = self._now()
            domain.schedule.add(name, start=identity.start, end=identity.end, now=now)
        if not tickets_in_place:
            domain.schedule.hasten(name, self._now())
        if keytab_due is not None:
            self._table.keytab_holders[name].add(holder)
            identity.keytab_due = min(keytab_due, identity.keytab_due or keytab_due)
        self._acquirer.make_keytab_in_time(domain, identity)
        domain.changed.set()

    def hasten(self, name: IdentityName) -> None:
        """Let an identity that is held be acquired now, and not in its turn."""
        domain = self._domains.find(name.session)
        if domain is not None and name in self._table.held:
            domain.schedule.hasten(name, self._now())
            domain.changed.set()

    def release(self, name: IdentityName, holder: str) -> None:
        """Let go of an identity; its ticket is dropped a minute after the last holder's release.

        The minute saves the domain a read and a ticket for each of many short containers in a row.
        """
        identity = self._table.held.get(name)
        if identity is None:
            return
        identity.holders.discard(holder)
        self._table.let_go_of_keytab(name, holder)
        if not identity.holders:
            self._domains.in_a_while(self._drop_unheld, identity)

    def release_keytab(self, name: IdentityName, holder: str) -> None:
        """Let go of an identity's keytab only; it goes with the last holder who wants one."""
        self._table.let_go_of_keytab(name, holder)

    async def refresh(self, name: IdentityName) -> None:
        """Acquire a held identity now, and give its ticket to its leases.

        Raises:
            CredspecError: of the step that failed; what was held stays.
        """
        identity = self._table.held.get(name)
        if identity is not None:
            await self._acquirer.acquire_again(self._domains.get(name.session), identity)

    async def service_ticket(
        self, name: IdentityName, service: ServiceName, life: timedelta
    ) -> ServiceTicket:
        """Return a new ticket of a service for an identity, by its TGT, which stays here.

        Raises:
            CredspecError: as `hold`, and as `DomainSession.service_ticket`.
        """
        identity = await self._acquired(name, keytab=False)
        if not identity.holders:
            # The lease that asked has ended meanwhile.
            self._domains.in_a_while(self._drop_unheld, identity)
        tgt = identity.ticket
        if tgt is None:
            raise ValueError("an identity that is held has a ticket")
        domain = self._domains.get(name.session)
        return await domain.run(lambda: domain.session.service_ticket(tgt, service, life))

    async def service_owner(self, name: IdentityName, spn: str) -> ServiceOwner | None:
        """Return whose a service's name is in an identity's domain.

        Raises:
            CredspecError: as `DomainSession.service_owner`.
        """
        domain = self._domains.get(name.session)
        return await domain.run(lambda: domain.session.service_owner(spn))

    async def forget_logons(self, concerned: Callable[[HostSource | None], bool]) -> None:
        """Let sessions log on afresh whose host account, or what gives it, is another now.

        What was kept of it is forgotten, and the identities that are held with it are acquired
        again in their background. `concerned` is asked for each source that a session has.
        """
        domains = [(key, self._domains.find(key)) for key in self._domains.sessions()]
        await asyncio.gather(
            *(
                self._forget_logon(key, domain)
                for key, domain in domains
                if domain is not None and concerned(key[1])
            )
        )

    async def _forget_logon(self, key: SessionKey, domain: OpenDomain) -> None:
        try:
            await domain.run(domain.session.forget_logon)
        except CredspecError as error:
            # A call is under way that does not end; what waits for it forgets after it.
            domain.last_error = error.detached()
        for identity in self._table.held.values():
            if identity.name.session == key and identity.holders:
                domain.schedule.hasten(identity.name, self._now())
        domain.changed.set()
        self._domains.close_soon(key)

    def clock_changed(self) -> None:
        """Plan all again after the clock was set or the host slept, or time has passed unseen."""
        for domain in self._domains.all():
            domain.schedule.plan_again(self._now())
            domain.changed.set()
        for identity in self._table.held.values():
            self._acquirer.make_keytab_in_time(self._domains.get(identity.name.session), identity)

    async def close(self) -> None:
        """Stop all refreshing and close all connections."""
        await self._domains.close(self._table.acquiring.values())

    async def _acquired(self, name: IdentityName, *, keytab: bool) -> Identity:
        for _ in range(_ACQUISITIONS_FOR_A_HOLDER):
            identity = self._table.held.get(name)
            if identity is not None and identity.may_be_given(self._now(), keytab=keytab):
                return identity
            # One whose time has come is acquired already; its failure is not reported here.
            domain = self._domains.get(name.session)
            task = self._table.acquiring.get(name) or domain.refreshing.get(name)
            if task is None:
                task = asyncio.create_task(self._acquirer.acquire_wanted(domain, name))
                self._table.acquiring[name] = task
                task.add_done_callback(lambda _: self._table.acquiring.pop(name, None))
            failure: CredspecError | None = None
            try:
                # Shielded: one impatient caller must not cancel the acquisition of the others.
                await asyncio.shield(task)
            except CredspecError as error:
                problems = dict.fromkeys((*error.problems, *self._why_not_given(name)))
                failure = error.with_problems(problems)
            finally:
                # Its error leads to this frame, which must not lead back to it.
                del task
            if failure is not None:
                try:
                    raise failure
                finally:
                    del failure
        identity = self._table.held.get(name)
        if identity is not None and identity.may_be_given(self._now(), keytab=keytab):
            return identity
        raise ClockRefusalError.of(
            "ticket-unfit",
            "the domain gives tickets that cannot be used"
            + "".join(f": {problem.found}" for problem in self._why_not_given(name)),
            where=f"identity {name.account}@{name.domain}",
            expected="more than a quarter of its lifetime left, and no start in the future",
            remedy="compare this host's clock with the domain controllers', and look at the "
            "lifetime of tickets in the domain's policies",
        )

    def _why_not_given(self, name: IdentityName) -> tuple[Problem, ...]:
        """Return why the ticket that is held is given to nobody; nothing if none is held."""
        identity = self._table.held.get(name)
        return () if identity is None else identity.why_not_given(self._now())

    def _drop_unheld(self, identity: Identity) -> None:
        if identity.holders or self._table.held.get(identity.name) is not identity:
            return
        domain = self._domains.get(identity.name.session)
        domain.schedule.remove(identity.name)
        domain.changed.set()
        del self._table.held[identity.name]
        emit(Event.IDENTITY_DROPPED, identity=str(identity.name))
        self._domains.close_unused(identity.name.session)
