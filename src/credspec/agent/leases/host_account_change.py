"""Another account for a lease to log on with, while its container runs."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from credspec.agent.audit import Caller
from credspec.agent.completion import completed
from credspec.agent.identities.identities import Identities
from credspec.agent.leases.audit import LeaseAudit
from credspec.agent.leases.claim import Claims, cut_off_error
from credspec.agent.leases.delivery import Delivery
from credspec.agent.leases.policy_check import check_lease
from credspec.agent.leases.record import LeaseRecord, valid_id
from credspec.agent.leases.table import LeaseTable
from credspec.config.policy import PolicyInForce
from credspec.errors import CredspecError
from credspec.providers.provider import HostAccount, HostSource
from credspec.service.keyed_lock import KeyedLock


class HostAccountChange:
    """Replaces what a lease logs on with, all of it or nothing."""

    def __init__(
        self,
        identities: Identities,
        table: LeaseTable,
        claims: Claims,
        delivery: Delivery,
        *,
        audit: LeaseAudit,
        policy: PolicyInForce,
        locks: KeyedLock[str],
    ) -> None:
        self._identities = identities
        self._table = table
        self._claims = claims
        self._delivery = delivery
        self._audit = audit
        self._policy = policy
        self._locks = locks

    async def make(self, lease_id: str, account: HostAccount, caller: Caller) -> LeaseRecord:
        """Let a lease log on with another account, and give it new tickets at once.

        If that fails, all stays as it was. It is in the audit log before it is done. The record
        that is there is returned if the lease logs on with this account already.

        Raises:
            NotFoundError: `lease-not-found`.
            NotPermittedError: as `check_lease`: the policy does not allow the lease any more.
            CredspecError: of the step that failed.
        """
        async with self._locks.hold(valid_id(lease_id)):
            before = self._table.get(lease_id)
            if before.revoked:
                raise cut_off_error(lease_id)
            check_lease(self._policy.policy, before)
            former = self._table.sources.get(lease_id)
            source = self._claims.given(account, before.domain, lease_id)
            if source == former:
                return before
            return await self._replace(before, source, former, caller)

    async def _replace(
        self, before: LeaseRecord, source: HostSource, former: HostSource | None, caller: Caller
    ) -> LeaseRecord:
        lease_id = before.lease_id
        names, former_names = self._table.names(before, source), self._table.names(before)
        is_written = False
        files: dict[str, bytes] | None = None
        try:
            await self._delivery.hold(before, names)
            check_lease(self._policy.policy, before)
            self._claims.check_given(source)
            is_written = True  # or will be, even if the caller goes meanwhile
            await completed(self._audit.granted_again(before, caller, source))
            files = await self._delivery.files_now(before)
            self._table.sources[lease_id] = source
            recorded = replace(self._table.get(lease_id), host_source=source.to_record())
            record = await self._delivery.give(recorded, whole=True)
        except BaseException as error:
            self._table.sources[lease_id] = former
            if files is not None:
                # Some may be the new ones, or all of them with a journal that cannot be written.
                with suppress(CredspecError):
                    await completed(self._delivery.put_back(before, files))
            for name in names:
                self._identities.release(name, lease_id)
            self._table.secrets.drop(lease_id, but=former.secret if former else None)
            if is_written:
                await completed(self._audit.not_replaced(before, caller, source, error))
            raise
        for name in former_names:
            self._identities.release(name, lease_id)
        self._table.secrets.drop(lease_id, but=source.secret)
        return record
