"""Leases whose files hold no ticket-granting ticket: which part of the agent serves each."""

from __future__ import annotations

from typing import Any

from credspec.agent.broker.broker import Broker
from credspec.agent.leases.record import LeaseRecord
from credspec.agent.leases.service_caches import ServiceCaches
from credspec.contract.service_names import BROKER


class WithoutTgt:
    """Hands leases to the caches of services or to the broker, as their records say."""

    def __init__(self, services: ServiceCaches, broker: Broker) -> None:
        self._services = services
        self._broker = broker

    async def give(self, record: LeaseRecord) -> LeaseRecord:
        """Give a lease what it holds; raises as `ServiceCaches.give` or `Broker.give`."""
        if record.tickets == BROKER:
            return await self._broker.give(record)
        return await self._services.give(record)

    def adopt(self, record: LeaseRecord, *, in_place: bool) -> None:
        """Take a lease of an earlier run over."""
        if record.tickets == BROKER:
            self._broker.adopt(record)
        else:
            self._services.adopt(record, in_place=in_place)

    def end(self, lease_id: str) -> None:
        """Serve a lease no more; one with a TGT is fine."""
        self._services.end(lease_id)
        self._broker.end(lease_id)

    def clock_changed(self) -> None:
        """Replace what may not be used by the clock as it is now; the broker looks at each call."""
        self._services.clock_changed()

    def status(self, record: LeaseRecord) -> dict[str, Any]:
        """Return what is shown of a lease beyond its record."""
        if record.tickets == BROKER:
            return self._broker.status(record)
        return self._services.status(record)
