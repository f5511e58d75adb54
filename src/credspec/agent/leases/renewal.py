"""New tickets for leases that have some already."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

from credspec.agent.identities.identities import Identities
from credspec.agent.identities.identity import Identity
from credspec.agent.leases.background import BackgroundTasks
from credspec.agent.leases.delivery import Delivery, unfit
from credspec.agent.leases.ending import LeaseEnds
from credspec.agent.leases.record import LeaseRecord
from credspec.agent.leases.retries import LeaseRetries
from credspec.agent.leases.table import LeaseTable
from credspec.agent.report_limit import LimitedEvents
from credspec.contract.service_names import SERVICES
from credspec.errors import CredspecError, internal_error
from credspec.service.events import Event, emit

_LEASES_AT_A_TIME: Final = 20
_REFRESHES_AT_A_TIME: Final = 8


class Renewal:
    """Gives the new tickets of identities to their leases, again and again where that fails."""

    def __init__(
        self,
        identities: Identities,
        table: LeaseTable,
        delivery: Delivery,
        ends: LeaseEnds,
        *,
        retries: LeaseRetries,
        events: LimitedEvents,
        background: BackgroundTasks,
        now: Callable[[], datetime],
    ) -> None:
        self._identities = identities
        self._table = table
        self._delivery = delivery
        self._ends = ends
        self._retries = retries
        self._events = events
        self._background = background
        self._now = now

    async def renew(self, identity: Identity) -> None:
        """Give an identity's new ticket to all its leases; one that fails does not stop others.

        A lease that the policy does not allow any more ends instead. Those of unprivileged users
        get it in the background, since their files may not answer.
        """
        # One taken over has none to give, but may know other controllers.
        if identity.ticket is not None and not identity.is_fit(self._now()):
            error = unfit([identity], self._now())
            emit(Event.REFRESH_FAILED, identity=str(identity.name), error=str(error))
            return
        for number, lease_id in enumerate(sorted(identity.holders)):
            record = self._table.records.get(lease_id)
            if record is None or not record.ready:
                continue
            if await self._ends.revoke_if_refused(record):
                pass
            elif record.tickets == SERVICES:
                pass  # it has tickets of services, which are replaced in their own time
            elif record.user is None:
                await self._renew_one(record)
            else:
                self._background.start(self._renew_one(record))
            if number % _LEASES_AT_A_TIME == 0:
                # Other requests are answered in between.
                await asyncio.sleep(0)

    async def try_again(self, lease_id: str) -> bool:
        """Try a lease again that did not get its tickets; return whether that is done with."""
        record = self._table.records.get(lease_id)
        if record is None or not record.ready:
            return True
        if await self._ends.revoke_if_refused(record):
            return True
        if not await self._renew_one(record, is_retry=True):
            return False
        emit(Event.LEASE_RENEWED_LATE, lease=record.lease_id, container=record.container)
        return True

    async def refresh(self, lease_ids: Iterable[str]) -> list[CredspecError]:
        """Acquire the identities of some leases now, each once; return what failed."""
        records = [self._table.records[i] for i in lease_ids if i in self._table.records]
        names = list(
            dict.fromkeys(name for record in records for name in self._table.names(record))
        )
        failures: list[CredspecError] = []
        for first in range(0, len(names), _REFRESHES_AT_A_TIME):
            some = names[first : first + _REFRESHES_AT_A_TIME]
            for found in await asyncio.gather(
                *map(self._identities.refresh, some), return_exceptions=True
            ):
                if isinstance(found, CredspecError):
                    failures.append(found)
                elif isinstance(found, Exception):
                    failures.append(internal_error(found, "leases"))
                elif found is not None:
                    raise found
        return failures

    async def _renew_one(self, record: LeaseRecord, *, is_retry: bool = False) -> bool:
        """Give a lease its new tickets; return whether it has them. If not, it is tried again."""
        # It may have ended or been replaced before its turn came.
        current = self._table.records.get(record.lease_id)
        if current is None:
            return True
        record = current
        try:
            await self._delivery.give(record, is_current=lambda: self._table.is_current(record))
        except CredspecError as error:
            failure = str(error)
        except Exception as error:  # noqa: BLE001 - the others have theirs
            failure = str(internal_error(error, f"lease {record.lease_id}"))
        else:
            self._retries.end(record.lease_id)
            return True
        fields = {"lease": record.lease_id, "container": record.container, "error": failure}
        if is_retry:
            pass  # a full disk of ten thousand leases is not to fill the log as well
        elif record.user is None:
            emit(Event.LEASE_NOT_RENEWED, **fields)
        else:
            self._events.emit(Event.LEASE_NOT_RENEWED, record.user, **fields)
        if record.lease_id in self._table.records:
            self._retries.begin(record.lease_id)
        return False
