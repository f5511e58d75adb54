"""Leases whose containers are gone, though nobody released them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from credspec.agent.leases.homes import Homes
from credspec.agent.leases.liveness import Liveness
from credspec.agent.leases.table import LeaseTable
from credspec.service.events import Event, emit


class Sweep:
    """Looks after all leases; `release` is awaited with the id of each that is to end."""

    def __init__(
        self,
        table: LeaseTable,
        liveness: Liveness,
        homes: Homes,
        release: Callable[[str], Awaitable[None]],
    ) -> None:
        self._table = table
        self._liveness = liveness
        self._homes = homes
        self._release = release

    async def run(self) -> int:
        """Release the leases whose containers are gone; return how many."""
        records = self._table.records
        gone = await self._liveness.gone(list(records.values()))
        await self._liveness.forget_all_but(list(records.values()))
        count = 0
        for record in gone:
            # While others were looked at, its container may have been started again.
            if not self._table.is_current(record):
                continue
            emit(Event.LEASE_ABANDONED, lease=record.lease_id, container=record.container)
            try:
                await self._release(record.lease_id)
            except Exception as error:  # noqa: BLE001 - the next sweep tries again
                emit(Event.INTERNAL_ERROR, path=record.lease_id, error=type(error).__name__)
            else:
                count += 1
        self._homes.close_to_others(records.values())
        return count
