"""Warns of services that are a machine's: their tickets open more than their name says."""

from __future__ import annotations

from credspec.agent.identities.identities import Identities
from credspec.agent.identities.identity import IdentityName
from credspec.agent.leases.record import LeaseRecord
from credspec.errors import CredspecError
from credspec.kerberos.service_names import ServiceName
from credspec.service.events import Event, emit

_MOST_KNOWN = 10_000


class ServiceOwners:
    """Asks the directory once whose a service is, and says so where it is a machine's."""

    def __init__(self, identities: Identities) -> None:
        self._identities = identities
        self._known: set[tuple[str, ServiceName]] = set()

    async def look(self, record: LeaseRecord, name: IdentityName, service: ServiceName) -> None:
        """Look at a service that a lease was given a ticket of; without an answer, another time."""
        key = (name.domain, service)
        if key in self._known:
            return
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known.add(key)
        try:
            owner = await self._identities.service_owner(name, service.spn)
        except CredspecError:
            self._known.discard(key)
            return
        if owner is not None and owner.is_machine:
            emit(
                Event.SERVICE_OF_MACHINE,
                lease=record.lease_id,
                container=record.container,
                service=service.text,
                owner=owner.account,
                domain_controller=owner.is_controller,
            )
