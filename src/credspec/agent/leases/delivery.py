"""Tickets on their way into a lease's files: the one place where they are written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import datetime
from functools import partial

from credspec.agent.identities.identities import Identities
from credspec.agent.identities.identity import Identity, IdentityName
from credspec.agent.leases.content import file_names, files_of
from credspec.agent.leases.files import LeaseFiles
from credspec.agent.leases.journal import Journal
from credspec.agent.leases.record import LeaseRecord
from credspec.agent.leases.table import LeaseTable
from credspec.agent.leases.without_tgt import WithoutTgt
from credspec.errors import ClockRefusalError, CredspecError, joined
from credspec.kerberos.ticket_life import state_of


class Delivery:
    """Holds the identities of leases, and writes what is held into their homes."""

    def __init__(
        self,
        identities: Identities,
        table: LeaseTable,
        journal: Journal,
        files: LeaseFiles,
        *,
        services: WithoutTgt,
        now: Callable[[], datetime],
    ) -> None:
        self._services = services
        self._identities = identities
        self._table = table
        self._journal = journal
        self._files = files
        self._now = now

    async def hold(
        self, record: LeaseRecord, names: tuple[IdentityName, ...] | None = None
    ) -> None:
        """Hold every identity of a lease, or none, with one problem for each that failed.

        Raises:
            CredspecError: of the steps that failed.
        """
        results = await asyncio.gather(
            *(
                self._identities.hold(name, record.lease_id, keytab=record.keytab)
                for name in names or self._table.names(record)
            ),
            return_exceptions=True,
        )
        failures = [r for r in results if isinstance(r, BaseException)]
        for failure in failures:
            if not isinstance(failure, CredspecError):
                raise failure
        if failures:
            raise joined([f for f in failures if isinstance(f, CredspecError)])

    async def give(
        self,
        record: LeaseRecord,
        *,
        whole: bool = False,
        is_current: Callable[[], bool] = lambda: True,
    ) -> LeaseRecord:
        """Put the tickets that are held into a lease's home, and journal until when.

        Tickets of which a quarter of the lifetime is left or less, or that start in the future, are
        not given: the container has what it had, or with `whole` the lease is refused. Nothing is
        journaled if the record is not current any more when its files are written.

        Raises:
            NotPermittedError: `ticket-unfit`.
            CredspecError: as `Home.write`, `LeaseFiles.run` and `Journal.write`; of a lease with
                tickets of services as `WithoutTgt.give`.
        """
        if not record.has_tgt:
            return await self._services.give(record)
        held = [i for i in map(self._identities.get, self._table.names(record)) if i is not None]
        now = self._now()
        home = self._files.homes.of(record)
        files = files_of(record, held, now, directory=home.inside)
        if whole and not file_names(record) <= files.keys():
            raise unfit([i for i in held if not i.is_fit(now)], now)
        given = replace(
            record,
            ready=True,
            ticket_start=min(identity.start for identity in held),
            ticket_end=min(identity.end for identity in held),
            keytab_due=min(
                (i.keytab_due for i in held if record.keytab and i.keytab_due is not None),
                default=None,
            ),
        )
        await self._files.run(
            home,
            partial(home.write, files, uid=record.uid, gid=record.gid, mode=record.mode),
        )
        self._services.end(record.lease_id)
        if is_current():
            self._journal.write(given)
            self._table.records[record.lease_id] = given
        return given

    async def files_now(self, record: LeaseRecord) -> dict[str, bytes]:
        """Return the files that are in a lease's home, for `put_back`.

        Raises:
            CredspecError: as `Home.read` and `LeaseFiles.run`.
        """
        home = self._files.homes.of(record)
        return await self._files.run(home, partial(home.read, file_names(record)))

    async def remove(self, record: LeaseRecord, names: AbstractSet[str]) -> None:
        """Remove files from a lease's home; nothing is journaled.

        Raises:
            CredspecError: as `Home.remove` and `LeaseFiles.run`.
        """
        if names:
            home = self._files.homes.of(record)
            await self._files.run(home, partial(home.remove, names))

    async def put_back(self, record: LeaseRecord, files: dict[str, bytes]) -> None:
        """Put files into a lease's home that were there before; nothing is journaled.

        Raises:
            CredspecError: as `Home.write` and `LeaseFiles.run`.
        """
        home = self._files.homes.of(record)
        await self._files.run(
            home,
            partial(home.write, files, uid=record.uid, gid=record.gid, mode=record.mode),
        )


def unfit(identities: Sequence[Identity], now: datetime) -> ClockRefusalError:
    """Return why tickets are given to nobody."""
    found = "; ".join(f"{i.name}: {state_of(i.start, i.end, now)}" for i in identities)
    return ClockRefusalError.of(
        "ticket-unfit",
        found or "a ticket is missing",
        where="ticket",
        expected="more than a quarter of its lifetime left, and no start in the future",
        remedy="start the container again; the clock was set while it was started",
    )
