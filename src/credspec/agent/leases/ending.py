"""The end of leases: released, revoked by the policy, or dropped before they began."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

from credspec.agent.audit import Caller
from credspec.agent.identities.identities import Identities
from credspec.agent.leases.audit import LeaseAudit
from credspec.agent.leases.files import LeaseFiles
from credspec.agent.leases.journal import Journal
from credspec.agent.leases.policy_check import Refusals, source_refusal
from credspec.agent.leases.record import LeaseRecord
from credspec.agent.leases.retries import LeaseRetries
from credspec.agent.leases.table import LeaseTable
from credspec.agent.leases.without_tgt import WithoutTgt
from credspec.config.policy import PolicyInForce
from credspec.errors import CredspecError
from credspec.providers.kept_secrets import KeptSecret
from credspec.providers.provider import HostSource
from credspec.providers.selection import Providers
from credspec.service.events import Event, emit
from credspec.service.keyed_lock import KeyedLock

_LEASES_AT_A_TIME: Final = 20


class LeaseEnds:
    """Ends leases: identities are let go of, files are wiped, the journal forgets them."""

    def __init__(
        self,
        identities: Identities,
        table: LeaseTable,
        journal: Journal,
        files: LeaseFiles,
        *,
        retries: LeaseRetries,
        services: WithoutTgt,
        audit: LeaseAudit,
        policy: PolicyInForce,
        providers: Providers,
        locks: KeyedLock[str],
    ) -> None:
        self._identities = identities
        self._table = table
        self._journal = journal
        self._files = files
        self._retries = retries
        self._services = services
        self._audit = audit
        self._policy = policy
        self._providers = providers
        self._locks = locks
        self._refusals = Refusals()

    def drop(self, lease_id: str, *, but: KeptSecret | None = None) -> asyncio.Future[None] | None:
        """End a lease; a user's files are wiped later, the future says when.

        The secret `but` is kept for another lease of the same id.
        """
        wiped: asyncio.Future[None] | None = None
        self._retries.end(lease_id)
        self._services.end(lease_id)
        record = self._table.records.pop(lease_id, None)
        if record is not None:
            wiped = self._files.wipe(record)
            for name in self._table.names(record):
                self._identities.release(name, lease_id)
        self._table.sources.pop(lease_id, None)
        self._table.secrets.drop(lease_id, but=but)
        self.forget(lease_id)
        return wiped

    def forget(self, lease_id: str) -> None:
        """Remove a lease from the journal."""
        try:
            self._journal.remove(lease_id)
        except CredspecError as error:
            # A record without a living container is dropped by the next run.
            emit(Event.JOURNAL_UNWRITABLE, lease=lease_id, error=str(error))

    async def revoke(self, record: LeaseRecord, error: CredspecError) -> None:
        """End a lease that is not allowed any more, and say so where grants are written."""
        self.drop(record.lease_id)
        await self._audit.revoked(record, error)

    async def cut_off(self, record: LeaseRecord, caller: Caller) -> asyncio.Future[None] | None:
        """Take a lease's tickets away for as long as its container lives, as root says.

        A user's files are wiped later, the future says when.

        Raises:
            CredspecError: `journal-unwritable`: it is cut off until the agent is started again.
        """
        lease_id = record.lease_id
        self._retries.end(lease_id)
        self._services.end(lease_id)
        kept = replace(record, ready=False, revoked=True, ticket_start=None, ticket_end=None)
        self._table.records[lease_id] = kept
        try:
            self._journal.write(kept)
        finally:
            wiped = self._files.wipe(record)
            for name in self._table.names(record):
                self._identities.release(name, lease_id)
            await self._audit.cut_off(kept, caller)
        return wiped

    def refused(self, record: LeaseRecord) -> CredspecError | None:
        """Return why policy or providers do not allow a lease any more, None if they do.

        One that root cut off has nothing to lose, and stays known until its container ends.
        """
        if record.revoked:
            return None
        return self.refused_with(record, self._table.sources.get(record.lease_id))

    def refused_with(self, record: LeaseRecord, source: HostSource | None) -> CredspecError | None:
        """Return why a lease that logs on with `source` is not allowed, None if it is."""
        refused = self._refusals.of(self._policy.policy, record)
        return refused or source_refusal(self._providers, source)

    async def revoke_if_refused(self, record: LeaseRecord) -> bool:
        """End a lease if it is not allowed any more; return whether it has ended."""
        refused = self.refused(record)
        if refused is not None:
            await self.revoke(record, refused)
        return refused is not None

    async def enforce_policy(self) -> int:
        """End every lease that policy or providers no longer allow; return how many."""
        tasks = []
        for number, record in enumerate(list(self._table.records.values())):
            if self.refused(record) is not None:
                # Each by itself: one that is being made must not hold up the others.
                tasks.append(asyncio.create_task(self._end_refused(record.lease_id)))
            if number % _LEASES_AT_A_TIME == 0:
                await asyncio.sleep(0)
        return sum(await asyncio.gather(*tasks))

    async def _end_refused(self, lease_id: str) -> bool:
        async with self._locks.hold(lease_id):
            record = self._table.records.get(lease_id)
            return record is not None and await self.revoke_if_refused(record)
