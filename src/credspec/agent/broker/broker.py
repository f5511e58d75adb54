"""Leases in mode broker: their decoys, the sockets of their KDCs, their requests answered.

The messages of a KDC are loaded with the first of these leases: half a MiB.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from credspec.agent.broker.decisions import Decisions
from credspec.agent.broker.decoy_keys import DecoyKeys
from credspec.agent.identities.identities import Identities
from credspec.agent.identities.identity import Identity
from credspec.agent.leases.content import cache_name, default_paths
from credspec.agent.leases.files import LeaseFiles
from credspec.agent.leases.journal import Journal
from credspec.agent.leases.record import LeaseRecord
from credspec.agent.leases.table import LeaseTable
from credspec.agent.service_sockets import STORED
from credspec.config.policy import Policy, PolicyInForce
from credspec.contract.service_names import BROKER
from credspec.errors import CredspecError, UsageError
from credspec.kerberos.krb5_conf import broker_krb5_conf
from credspec.kerberos.service_names import ServicePattern
from credspec.service.events import Event, emit
from credspec.service.notification import forget_descriptors, store_descriptors

if TYPE_CHECKING:
    from credspec.agent.broker.kdc_sockets import KdcSockets
    from credspec.agent.broker.lease_kdc import Lease, Tickets


class Broker:
    """The KDCs of this host's leases, one each.

    `stored` are the sockets that the service manager kept over a restart, by lease.
    """

    def __init__(
        self,
        identities: Identities,
        tickets: Tickets,
        table: LeaseTable,
        journal: Journal,
        files: LeaseFiles,
        *,
        keys: DecoyKeys,
        decisions: Decisions,
        policy: PolicyInForce,
        stored: dict[str, list[socket.socket]],
        now: Callable[[], datetime],
    ) -> None:
        self._identities = identities
        self._tickets = tickets
        self._table = table
        self._journal = journal
        self._files = files
        self._keys = keys
        self._decisions = decisions
        self._policy = policy
        self._stored = stored
        self._now = now
        self._served: dict[str, KdcSockets] = {}

    async def give(self, record: LeaseRecord) -> LeaseRecord:
        """Give a lease new decoys; programs that hold former ones go on with them.

        What programs have put into the files since goes, or these would grow for as long as the
        container lives.

        Raises:
            CredspecError: as `DecoyKeys.of`, `Home.write`, `LeaseFiles.run`, `Journal.write`.
        """
        held = [i for i in map(self._identities.get, self._table.names(record)) if i is not None]
        served = self._served.get(record.lease_id)
        former, record = record, replace(record, kdc_port=None if served is None else served.port)
        files = {**self._decoys(record, held), "krb5.conf": self._krb5_conf(record)}
        await self._write(record, files)
        given = replace(
            record,
            ready=True,
            ticket_start=min(identity.start for identity in held),
            ticket_end=min(identity.end for identity in held),
        )
        return self._kept(former, given)

    async def serve(self, lease_id: str, sockets: Sequence[socket.socket]) -> LeaseRecord:
        """Serve a lease at a TCP and a UDP socket of its container; they are closed with it.

        Where it fails, they are the caller's to close.

        Raises:
            NotFoundError: `lease-not-found`.
            UsageError: `kdc-sockets-unfit`: the lease is of another kind, or the sockets are.
            CredspecError: as `give`.
        """
        record = self._table.get(lease_id)
        self._start(record, sockets)
        served = self._served[lease_id]
        try:
            store_descriptors(f"{STORED}{lease_id}", served.descriptors)
            given = replace(record, kdc_port=served.port)
            await self._write(given, {"krb5.conf": self._krb5_conf(given)})
            return self._kept(record, given)
        except BaseException:
            # While they are open: a closed socket of which there is a copy would be ready for ever.
            self._stop(lease_id)
            raise

    def adopt(self, record: LeaseRecord) -> None:
        """Serve a lease of an earlier run at the sockets that the service manager kept."""
        try:
            self._start(record, self._stored.pop(record.lease_id, ()))
        except CredspecError:
            emit(Event.BROKER_SOCKETS_LOST, lease=record.lease_id, container=record.container)

    def adopted(self) -> None:
        """Close the sockets of leases that are gone."""
        for lease_id, sockets in self._stored.items():
            for each in sockets:
                each.close()
            forget_descriptors(f"{STORED}{lease_id}")
        self._stored.clear()

    def end(self, lease_id: str) -> None:
        """Serve a lease no more, and make its decoys worthless; one of another kind is fine."""
        self._stop(lease_id)
        self._keys.forget(lease_id)

    def close(self) -> None:
        """Stop serving; the service manager keeps the sockets for the next run."""
        for served in self._served.values():
            served.close(for_good=False)
        self._served.clear()

    def status(self, record: LeaseRecord) -> dict[str, Any]:
        """Return what is shown of a lease beyond its record."""
        return {
            "kdc_served": record.lease_id in self._served,
            "denied": self._decisions.denials(record.lease_id),
        }

    def _start(self, record: LeaseRecord, sockets: Sequence[socket.socket]) -> None:
        if record.tickets != BROKER or record.revoked or len(sockets) != 2:  # noqa: PLR2004
            raise _unfit(f"{len(sockets)} sockets, tickets={record.tickets}")
        from credspec.agent.broker.kdc_sockets import KdcSockets, UnfitSocketsError
        from credspec.agent.broker.lease_kdc import LeaseKdc

        kdc = LeaseKdc(
            self._keys.of(record.lease_id),
            partial(self._lease, record.lease_id),
            self._tickets,
            self._decisions,
            policy=self._policy_now,
            now=self._now,
        )
        # Over SCM_RIGHTS and the service manager they come in the order in which they were sent.
        tcp, udp = sorted(sockets, key=lambda each: each.type == socket.SOCK_DGRAM)
        try:
            served = KdcSockets(
                *(tcp, udp, kdc.answer, kdc.too_big), is_shared=record.user is not None
            )
        except UnfitSocketsError:
            raise _unfit("other sockets") from None
        self._stop(record.lease_id)
        self._served[record.lease_id] = served
        served.start()

    def _stop(self, lease_id: str) -> None:
        served = self._served.pop(lease_id, None)
        if served is not None:
            forget_descriptors(f"{STORED}{lease_id}")
            served.close()

    def _policy_now(self) -> Policy:
        return self._policy.policy

    def _lease(self, lease_id: str) -> Lease | None:
        record = self._table.records.get(lease_id)
        if record is None or record.revoked:
            return None
        from credspec.agent.broker.lease_kdc import Lease

        return Lease(record, self._table.names(record), self._realms(record))

    def _realms(self, record: LeaseRecord) -> frozenset[str]:
        """Return the realms that a lease's clients may ask: its accounts' and its patterns'."""
        names = self._table.names(record)
        patterns = [ServicePattern.parse(text) for text in record.services]
        for name in names:
            patterns += self._policy.policy.services_of(f"{name.account}@{name.domain}") or ()
        named = {each.realm for each in patterns if each is not None and each.realm is not None}
        return frozenset({name.domain.upper() for name in names} | named)

    def _decoys(self, record: LeaseRecord, held: Sequence[Identity]) -> dict[str, bytes]:
        from credspec.kerberos.kdc.decoy import decoy_cache, new_decoy

        key = self._keys.of(record.lease_id)
        files: dict[str, bytes] = {}
        for identity in held:
            name = identity.name
            if identity.ticket is None:
                continue
            decoy = new_decoy(
                f"{name.account}@{name.domain}", identity.ticket.principal, self._now()
            )
            cache = decoy_cache(decoy, key)
            if len(held) > 1:
                files[cache_name(record, name)] = cache
            own = record.default_account.lower(), record.domain.lower()
            if (name.account, name.domain) == own:
                files["krb5cc"] = cache
        return files

    def _krb5_conf(self, record: LeaseRecord) -> bytes:
        inside = self._files.homes.of(record).inside
        paths = None if inside is None else default_paths(record, inside)
        text = broker_krb5_conf(
            record.domain.upper(),
            sorted(self._realms(record)),
            record.kdc_port,
            paths=paths,
            name_fallback=record.name_fallback,
        )
        return text.encode()

    async def _write(self, record: LeaseRecord, files: dict[str, bytes]) -> None:
        home = self._files.homes.of(record)
        write = partial(home.write, files, uid=record.uid, gid=record.gid, mode=record.mode)
        await self._files.run(home, write)

    def _kept(self, record: LeaseRecord, given: LeaseRecord) -> LeaseRecord:
        if self._table.is_current(record):
            self._journal.write(given)
            self._table.records[record.lease_id] = given
        return given


def _unfit(found: str) -> UsageError:
    return UsageError.of(
        "kdc-sockets-unfit",
        found,
        where="sockets of the container's KDC",
        expected="a listening TCP socket and a UDP socket at one port of 127.0.0.1, for a lease "
        "with tickets=broker",
    )
