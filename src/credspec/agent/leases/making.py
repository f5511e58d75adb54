"""Making a lease, or giving one that lives another content.

A request goes through `claim` (whatever may refuse it), to `delivery` (its tickets), and into the
audit log, before it is answered.
"""

from __future__ import annotations

from credspec.agent.audit import AuditUnwritableError
from credspec.agent.completion import completed
from credspec.agent.leases.audit import LeaseAudit
from credspec.agent.leases.background import BackgroundTasks
from credspec.agent.leases.claim import Claim, Claims, cut_off_error
from credspec.agent.leases.delivery import Delivery
from credspec.agent.leases.ending import LeaseEnds
from credspec.agent.leases.journal import Journal
from credspec.agent.leases.record import LeaseRecord, valid_id
from credspec.agent.leases.replacement import LeaseReplacement
from credspec.agent.leases.request import LeaseRequest
from credspec.agent.leases.table import LeaseTable
from credspec.errors import CredspecError
from credspec.service.events import Event, emit
from credspec.service.keyed_lock import KeyedLock


class LeaseMaking:
    """Makes leases; `granted` and `denied` count its answers."""

    def __init__(
        self,
        claims: Claims,
        table: LeaseTable,
        journal: Journal,
        delivery: Delivery,
        replacement: LeaseReplacement,
        *,
        ends: LeaseEnds,
        audit: LeaseAudit,
        background: BackgroundTasks,
        locks: KeyedLock[str],
    ) -> None:
        self.granted = 0
        self.denied = 0
        self._claims = claims
        self._table = table
        self._journal = journal
        self._delivery = delivery
        self._replacement = replacement
        self._ends = ends
        self._audit = audit
        self._background = background
        self._locks = locks

    async def make(self, request: LeaseRequest) -> LeaseRecord:
        """Make a lease: all accounts of the spec have their tickets in place, or all is as it was.

        A second request for the same id replaces the first; if it is refused, the lease stays as
        it is, unless the policy forbids that by now. The answer is in the audit log before it is
        given.

        Raises:
            InvalidSpecError: the spec cannot be read or used.
            NotPermittedError: the policy, the directory or the KDC refuses.
            CredspecError: of the step that failed.
        """
        valid_id(request.lease_id)
        try:
            async with self._claims.turn(request), self._locks.hold(request.lease_id):
                request = await self._claims.of_caller(request)
                former = self._table.records.get(request.lease_id)
                if former is not None and former.revoked:
                    raise cut_off_error(request.lease_id)
                try:
                    claim = await self._claims.examine(request)
                    if former is None:
                        return await self._grant(request, claim)
                    return await self._replace(former, request, claim)
                except CredspecError:
                    await self._revoke_if_refused(request.lease_id)
                    raise
                finally:
                    self._table.drop_unused_secrets(request.lease_id)
        except CredspecError as error:
            self.denied += 1
            if not isinstance(error, AuditUnwritableError):
                await self._audit.denied(request, error)
            raise

    async def _replace(
        self, former: LeaseRecord, request: LeaseRequest, claim: Claim
    ) -> LeaseRecord:
        """Give a lease another content; one whose files are elsewhere by now is made again."""
        record = claim.record
        if _home_of(record) != _home_of(former):
            secret = None if claim.source is None else claim.source.secret
            self._ends.drop(former.lease_id, but=secret)
            await completed(self._audit.released(former, request.caller))
            return await self._grant(request, claim)
        given = await self._replacement.make(request, claim)
        self._report_granted(given)
        return given

    async def _revoke_if_refused(self, lease_id: str) -> None:
        """End a lease that keeps what it has, if that is not allowed any more."""
        record = self._table.records.get(lease_id)
        if record is not None:
            await self._ends.revoke_if_refused(record)

    async def _grant(self, request: LeaseRequest, claim: Claim) -> LeaseRecord:
        """Give a lease its tickets, or leave nothing of it; the journal has it first."""
        record = claim.record
        self._journal.write(record)
        self._table.sources[record.lease_id] = claim.source
        self._table.records[record.lease_id] = record
        is_written = False
        try:
            await self._delivery.hold(record)
            # The configuration may have been reloaded while the domain was asked.
            refused = self._ends.refused(record)
            if refused is not None:
                raise refused
            record = await self._delivery.give(record, whole=True)
            is_written = True  # or will be, even if the caller goes meanwhile
            await completed(self._audit.granted(record, request, claim.source))
        except BaseException as error:
            self._ends.drop(record.lease_id)
            if is_written:
                end = self._audit.released(record, request.caller)
                # If the disk does not answer, the line is on its way; its end follows it there.
                if isinstance(error, CredspecError):
                    self._background.start(end)
                else:
                    await completed(end)
            raise
        self._report_granted(record)
        return record

    def _report_granted(self, record: LeaseRecord) -> None:
        self.granted += 1
        emit(
            Event.LEASE_GRANTED,
            lease=record.lease_id,
            container=record.container,
            domain=record.domain,
            accounts=list(record.accounts),
        )


def _home_of(record: LeaseRecord) -> tuple[int | None, str | None, str]:
    return record.user, record.place, record.runtime_state
