"""Another spec for a lease while its container runs: its object was changed, or it is asked again.

All that may refuse the new one is asked first, so that a container keeps the tickets that it has
until it has the new ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from credspec.agent.audit import AuditUnwritableError
from credspec.agent.completion import completed
from credspec.agent.identities.identities import Identities
from credspec.agent.identities.identity import IdentityName
from credspec.agent.leases.audit import LeaseAudit
from credspec.agent.leases.background import BackgroundTasks
from credspec.agent.leases.claim import Claim
from credspec.agent.leases.content import file_names, identity_names
from credspec.agent.leases.delivery import Delivery
from credspec.agent.leases.ending import LeaseEnds
from credspec.agent.leases.journal import Journal
from credspec.agent.leases.record import LeaseRecord
from credspec.agent.leases.request import LeaseRequest
from credspec.agent.leases.retries import LeaseRetries
from credspec.agent.leases.table import LeaseTable
from credspec.errors import CredspecError
from credspec.providers.provider import HostSource


class LeaseReplacement:
    """Replaces what a lease has, all of it or nothing; its home stays the same."""

    def __init__(
        self,
        identities: Identities,
        table: LeaseTable,
        delivery: Delivery,
        journal: Journal,
        ends: LeaseEnds,
        *,
        audit: LeaseAudit,
        retries: LeaseRetries,
        background: BackgroundTasks,
    ) -> None:
        self._identities = identities
        self._table = table
        self._delivery = delivery
        self._journal = journal
        self._ends = ends
        self._audit = audit
        self._retries = retries
        self._background = background

    async def make(self, request: LeaseRequest, claim: Claim) -> LeaseRecord:
        """Give a lease what was examined in place of what it has; if that fails, all stays.

        It is in the audit log before it is done. To be called with the lease's lock held.

        Raises:
            NotFoundError: `lease-not-found`: the lease was revoked meanwhile.
            NotPermittedError: the policy, the directory or the KDC refuses.
            CredspecError: of the step that failed.
        """
        record, source = claim.record, claim.source
        lease_id = record.lease_id
        former, former_source = self._table.get(lease_id), self._table.sources.get(lease_id)
        names, former_names = identity_names(record, source), self._table.names(former)
        try:
            await self._delivery.hold(record, names)
            # The configuration may have been reloaded while the domain was asked.
            refused = self._ends.refused_with(record, source)
            if refused is not None:
                raise refused
            given = await self._put(self._table.get(lease_id), former_source, request, claim)
        except BaseException:
            # One that was revoked meanwhile has nothing any more, not even what both have.
            is_there = lease_id in self._table.records
            self._let_go(names, but=former_names if is_there else (), had=record, has=former)
            raise
        self._let_go(former_names, but=names, had=former, has=record)
        self._retries.end(lease_id)
        return given

    async def _put(
        self,
        former: LeaseRecord,
        former_source: HostSource | None,
        request: LeaseRequest,
        claim: Claim,
    ) -> LeaseRecord:
        """Write the audit log and the files, or leave both as if nothing had been."""
        record, lease_id = claim.record, claim.record.lease_id
        files = await self._delivery.files_now(former)
        is_begun = False
        try:
            # Written in any case, even if the caller goes meanwhile.
            await completed(self._audit.replaced(former, record, request, claim.source))
            former = self._table.get(lease_id)  # it may have been renewed meanwhile, or revoked
            is_begun = True
            self._table.sources[lease_id] = claim.source
            self._table.records[lease_id] = record
            given = await self._delivery.give(record, whole=True)
            await self._delivery.remove(record, file_names(former) - file_names(record))
        except BaseException as error:
            if is_begun:
                await completed(self._put_back(former, former_source, record, files))
            kept = self._audit.kept(
                record, self._table.records.get(lease_id), request.caller, former_source
            )
            # If the disk does not answer, the lines are on their way; these follow them there.
            if isinstance(error, AuditUnwritableError):
                self._background.start(kept)
            else:
                await completed(kept)
            raise
        return given

    async def _put_back(
        self,
        former: LeaseRecord,
        former_source: HostSource | None,
        record: LeaseRecord,
        files: dict[str, bytes],
    ) -> None:
        self._table.sources[former.lease_id] = former_source
        self._table.records[former.lease_id] = former
        # Some may be the new ones, or all of them with a journal that cannot be written.
        with suppress(CredspecError):
            self._journal.write(former)
        with suppress(CredspecError):
            await self._delivery.put_back(former, files)
        with suppress(CredspecError):
            await self._delivery.remove(former, file_names(record) - file_names(former))
        # What it was to be given meanwhile, it was not.
        self._retries.begin(former.lease_id)

    def _let_go(
        self,
        names: Iterable[IdentityName],
        *,
        but: tuple[IdentityName, ...],
        had: LeaseRecord,
        has: LeaseRecord,
    ) -> None:
        """Let go of the identities of the one record that the other has not."""
        for name in names:
            if name not in but:
                self._identities.release(name, had.lease_id)
            elif had.keytab and not has.keytab:
                self._identities.release_keytab(name, had.lease_id)
