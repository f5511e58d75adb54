"""All leases of this host: made, released, given another account to log on with.

A request goes from here to `making`; what goes on while a lease lasts is in `renewal`, `sweep` and,
after a restart, in `recovery`; how it ends is in `ending`.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from credspec.agent.audit import NOBODY, AuditLog, Caller
from credspec.agent.blocking_calls import BlockingCalls
from credspec.agent.broker.broker import Broker
from credspec.agent.broker.decisions import Decisions
from credspec.agent.broker.decoy_keys import DecoyKeys
from credspec.agent.completion import completed
from credspec.agent.identities.identities import Identities
from credspec.agent.identities.identity import Identity
from credspec.agent.identities.refresh_schedule import Spread
from credspec.agent.identities.service_tickets import ServiceTickets
from credspec.agent.leases.audit import LeaseAudit
from credspec.agent.leases.background import BackgroundTasks
from credspec.agent.leases.claim import Claims, not_yours
from credspec.agent.leases.delivery import Delivery
from credspec.agent.leases.ending import LeaseEnds
from credspec.agent.leases.files import FILES_SECONDS, LeaseFiles
from credspec.agent.leases.homes import Homes
from credspec.agent.leases.host_account_change import HostAccountChange
from credspec.agent.leases.journal import Journal
from credspec.agent.leases.liveness import Liveness
from credspec.agent.leases.making import LeaseMaking
from credspec.agent.leases.record import LEASE_ID, LeaseRecord, valid_id
from credspec.agent.leases.recovery import Recovery
from credspec.agent.leases.removed_directories import follow_removals
from credspec.agent.leases.renewal import Renewal
from credspec.agent.leases.replacement import LeaseReplacement
from credspec.agent.leases.request import LeaseRequest
from credspec.agent.leases.retries import LeaseRetries
from credspec.agent.leases.service_audit import ServiceAudit
from credspec.agent.leases.service_caches import ServiceCaches
from credspec.agent.leases.service_owners import ServiceOwners
from credspec.agent.leases.sweep import Sweep
from credspec.agent.leases.table import LeaseTable
from credspec.agent.leases.without_tgt import WithoutTgt
from credspec.agent.report_limit import LimitedEvents
from credspec.config.policy import Policy, PolicyInForce
from credspec.errors import CredspecError
from credspec.providers.provider import HostAccount
from credspec.providers.selection import Providers
from credspec.service.events import Event, emit
from credspec.service.keyed_lock import KeyedLock
from credspec.spec.spec_directory import SpecDirectory

_spread: Final = random.SystemRandom().uniform


class Leases:
    """All leases of this host."""

    def __init__(
        self,
        identities: Identities,
        journal: Journal,
        *,
        leases_directory: Path,
        process_leases_directory: Path | None = None,
        volumes_directory: Path | None = None,
        spec_directory: Path,
        audit: AuditLog,
        policy: Policy | PolicyInForce | None = None,
        providers: Providers | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        spread: Spread = _spread,
        stored_sockets: dict[str, list[socket.socket]] | None = None,
    ) -> None:
        self.policy = policy if isinstance(policy, PolicyInForce) else PolicyInForce(policy)
        self._identities = identities
        self._journal = journal
        self._table = LeaseTable()
        self._locks: KeyedLock[str] = KeyedLock()
        self._homes = Homes(
            leases_directory,
            process_leases_directory or leases_directory,
            volumes=volumes_directory or leases_directory.with_name("volumes"),
        )
        self._background = BackgroundTasks()
        providers = providers or Providers()
        calls: BlockingCalls[int | None] = BlockingCalls()
        events = LimitedEvents()
        files = LeaseFiles(self._homes, calls)
        self._audit = LeaseAudit(audit, events, self._background)
        self._claims = Claims(
            *(identities, self._table),
            homes=self._homes,
            homes_calls=calls,
            specs=SpecDirectory(spec_directory, trusted=True),
            policy=self.policy,
            providers=providers,
            now=now,
            monotonic=monotonic,
        )
        self.service_audit = ServiceAudit(audit)
        tickets = ServiceTickets(identities, now=now)
        caches = ServiceCaches(
            *(tickets, self._table, journal, files),
            audit=self.service_audit,
            policy=self.policy,
            revoke_if_refused=self._has_been_revoked,
            owners=ServiceOwners(identities),
            background=self._background,
            now=now,
            sleep=sleep,
            spread=spread,
        )
        self._broker = Broker(
            *(identities, tickets, self._table, journal, files),
            keys=DecoyKeys(leases_directory.with_name("decoys")),
            decisions=Decisions(self.service_audit, self._background),
            policy=self.policy,
            stored={} if stored_sockets is None else stored_sockets,
            now=now,
        )
        self._services = WithoutTgt(caches, self._broker)
        self._delivery = Delivery(
            *(identities, self._table, journal, files), services=self._services, now=now
        )
        self._retries = LeaseRetries(self._try_again, sleep=sleep)
        self._ends = LeaseEnds(
            *(identities, self._table, journal, files),
            retries=self._retries,
            services=self._services,
            audit=self._audit,
            policy=self.policy,
            providers=providers,
            locks=self._locks,
        )
        self._renewal = Renewal(
            *(identities, self._table, self._delivery, self._ends),
            retries=self._retries,
            events=events,
            background=self._background,
            now=now,
        )
        liveness = Liveness(self._homes, calls, monotonic=monotonic)
        self._recovery = Recovery(
            *(identities, self._table, journal, files),
            liveness=liveness,
            ends=self._ends,
            services=self._services,
            audit=self._audit,
            background=self._background,
            locks=self._locks,
        )
        self._sweep = Sweep(self._table, liveness, self._homes, self.release)
        self._replacement = LeaseReplacement(
            *(identities, self._table, self._delivery, journal, self._ends),
            audit=self._audit,
            retries=self._retries,
            background=self._background,
        )
        self._making = LeaseMaking(
            *(self._claims, self._table, journal, self._delivery, self._replacement),
            ends=self._ends,
            audit=self._audit,
            background=self._background,
            locks=self._locks,
        )
        self._account_change = HostAccountChange(
            *(identities, self._table, self._claims, self._delivery),
            audit=self._audit,
            policy=self.policy,
            locks=self._locks,
        )

    @property
    def count(self) -> int:
        """How many leases there are."""
        return len(self._table.records)

    @property
    def granted(self) -> int:
        """How many leases were granted since the agent started."""
        return self._making.granted

    @property
    def denied(self) -> int:
        """How many requests were denied since the agent started."""
        return self._making.denied

    def all(self) -> list[LeaseRecord]:
        """Return all leases, oldest first."""
        return self._table.all()

    def get(self, lease_id: str) -> LeaseRecord:
        """Return one lease.

        Raises:
            UsageError: `lease-id-invalid`.
            NotFoundError: `lease-not-found`.
        """
        return self._table.get(lease_id)

    def sees_directory(self, lease_id: str) -> bool:
        """Return whether what is mounted for a lease of the host's own is seen by this process.

        Raises:
            UsageError: `lease-id-invalid`.
        """
        return self._homes.is_mounted(valid_id(lease_id))

    async def make(self, request: LeaseRequest) -> LeaseRecord:
        """Make a lease, or replace that of the same id, see `LeaseMaking.make`."""
        return await self._making.make(request)

    async def release(self, lease_id: str, caller: Caller = NOBODY) -> None:
        """Release a lease and wipe its tickets; one that does not exist is fine.

        Raises:
            UsageError: `lease-id-invalid`.
            NotPermittedError: `lease-not-yours`.
        """
        async with self._locks.hold(valid_id(lease_id)):
            record = self._table.records.get(lease_id)
            if record is None:
                return
            if caller.uid not in {NOBODY.uid, 0, os.geteuid(), record.user}:
                raise not_yours(lease_id)
            await self._end(record, caller)

    async def _directory_removed(self, name: str) -> None:
        """Release the container's lease whose directory was `name`, unless it is there again."""
        if not LEASE_ID.fullmatch(name):
            return
        async with self._locks.hold(name):
            record = self._table.records.get(name)
            if record is not None and self._homes.is_removed(record):
                await self._end(record, NOBODY)

    async def _end(self, record: LeaseRecord, caller: Caller) -> None:
        """End a lease that is locked."""
        wiped = self._ends.drop(record.lease_id)
        emit(Event.LEASE_RELEASED, lease=record.lease_id, container=record.container)
        await completed(self._audit.released(record, caller))
        if wiped is not None:
            await asyncio.wait([wiped], timeout=FILES_SECONDS)

    async def revoke(self, lease_id: str, caller: Caller = NOBODY) -> LeaseRecord:
        """Cut a container off from its accounts: its tickets are wiped, and it gets no others.

        It stays so until the container ends, also across restarts of the agent.

        Raises:
            UsageError: `lease-id-invalid`.
            NotFoundError: `lease-not-found`.
            CredspecError: `journal-unwritable`: it is cut off until the agent is started again.
        """
        async with self._locks.hold(valid_id(lease_id)):
            record = self._table.get(lease_id)
            if not record.revoked:
                wiped = await completed(self._ends.cut_off(record, caller))
                if wiped is not None:
                    await asyncio.wait([wiped], timeout=FILES_SECONDS)
            return self._table.get(lease_id)

    async def serve_kdc(
        self, lease_id: str, sockets: list[socket.socket], caller: Caller = NOBODY
    ) -> LeaseRecord:
        """Serve a lease in mode broker at sockets of its container, see `Broker.serve`.

        Raises:
            UsageError: `lease-id-invalid`, `kdc-sockets-unfit`.
            NotFoundError: `lease-not-found`.
            NotPermittedError: `lease-not-yours`.
            CredspecError: as `Broker.serve`.
        """
        try:
            async with self._locks.hold(valid_id(lease_id)):
                record = self._table.get(lease_id)
                if caller.uid not in {NOBODY.uid, 0, os.geteuid(), record.user}:
                    raise not_yours(lease_id)
                return await self._broker.serve(lease_id, sockets)
        except BaseException:
            for each in sockets:
                each.close()
            raise

    def close(self) -> None:
        """Serve no more; containers keep what they have."""
        self._broker.close()

    def status(self, record: LeaseRecord) -> dict[str, Any]:
        """Return what is shown of a lease beyond its record."""
        return self._services.status(record)

    async def replace_host_account(
        self, lease_id: str, account: HostAccount, caller: Caller = NOBODY
    ) -> LeaseRecord:
        """Let a lease log on with another account, see `HostAccountChange.make`."""
        return await self._account_change.make(lease_id, account, caller)

    async def renew(self, identity: Identity) -> None:
        """Give an identity's new ticket to all its leases, see `Renewal.renew`."""
        await self._renewal.renew(identity)

    async def _has_been_revoked(self, record: LeaseRecord) -> bool:
        return await self._ends.revoke_if_refused(record)

    async def _try_again(self, lease_id: str) -> bool:
        return await self._renewal.try_again(lease_id)

    async def refresh(self, lease_ids: Iterable[str]) -> list[CredspecError]:
        """Acquire the identities of some leases now, each once; return what failed."""
        return await self._renewal.refresh(lease_ids)

    def clock_changed(self) -> None:
        """Look at the tickets of services again after the clock was set or the host slept."""
        self._services.clock_changed()

    async def enforce_policy(self) -> int:
        """End every lease that policy or providers no longer allow; return how many."""
        return await self._ends.enforce_policy()

    async def adopt(self) -> None:
        """Take over the leases of an earlier run, and look at them; see `Recovery`."""
        await self.take_over()
        await self._recovery.examine()

    async def take_over(self) -> None:
        """Take over the leases of an earlier run; the next `sweep` looks at them.

        See `Recovery.take_over`.
        """
        await self._recovery.take_over()
        self._broker.adopted()

    async def watch(self) -> None:
        """Release leases as soon as their containers' directories are removed, until cancelled.

        Where the kernel has no watch to give, `sweep` finds them.
        """

        def removed(name: str) -> None:
            self._background.start(self._directory_removed(name))

        try:
            await follow_removals(self._homes.containers, removed)
        except OSError as error:
            emit(Event.LEASES_NOT_CHECKED, error=f"{self._homes.containers}: {error.strerror}")

    async def sweep(self) -> int:
        """Release the leases whose containers are gone; return how many."""
        if not self._recovery.is_examined:
            return await self._recovery.examine()
        return await self._sweep.run()
