"""After a restart: which leases of the run before are taken over, and which end.

First all of them are made known; then it is looked which containers are gone, and which files. Of
thousands that is done while others are served already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Final

from credspec.agent.identities.identities import Identities
from credspec.agent.leases.audit import LeaseAudit
from credspec.agent.leases.background import BackgroundTasks
from credspec.agent.leases.content import file_names
from credspec.agent.leases.ending import LeaseEnds
from credspec.agent.leases.files import LeaseFiles
from credspec.agent.leases.home import Home
from credspec.agent.leases.journal import Journal
from credspec.agent.leases.liveness import Liveness
from credspec.agent.leases.record import LeaseRecord
from credspec.agent.leases.table import LeaseTable
from credspec.agent.leases.without_tgt import WithoutTgt
from credspec.errors import CredspecError
from credspec.providers.provider import source_of_record
from credspec.service.events import Event, emit
from credspec.service.keyed_lock import KeyedLock

# Of a user's files: the host's own engines wait for the agent meanwhile.
_FILES_SECONDS: Final = 2.0
_LEASES_AT_A_TIME: Final = 20
# Nobody is served yet while records are taken over.
_RECORDS_AT_A_TIME: Final = 200
# So many are looked at before anybody is served: that takes no longer than the rest of a start.
_FEW: Final = 200


class Recovery:
    """Takes over the leases of an earlier run whose containers still live, and ends the others."""

    def __init__(
        self,
        identities: Identities,
        table: LeaseTable,
        journal: Journal,
        files: LeaseFiles,
        *,
        liveness: Liveness,
        ends: LeaseEnds,
        services: WithoutTgt,
        audit: LeaseAudit,
        background: BackgroundTasks,
        locks: KeyedLock[str],
    ) -> None:
        self._identities = identities
        self._table = table
        self._journal = journal
        self._files = files
        self._liveness = liveness
        self._ends = ends
        self._services = services
        self._audit = audit
        self._background = background
        self._locks = locks
        self._unexamined: list[LeaseRecord] = []

    async def take_over(self) -> None:
        """Take over what can be taken over; of many, `examine` is to be called after it.

        The containers keep the tickets that they have; nobody is asked until it is their time. What
        the policy does not allow any more is ended, too. A record that is damaged, or that cannot
        be taken over for any reason, costs its own lease.
        """
        records = self._read_journal()
        # Of one without a TGT it must be known first: its services would be asked for at once.
        first = [record for record in records if not record.has_tgt]
        gone = await self._liveness.gone(first, seconds=_FILES_SECONDS)
        ended = {record.lease_id for record in gone}
        in_place = await self._with_files_in_place(r for r in first if r.lease_id not in ended)
        dropped = []
        for number, record in enumerate(records):
            self._table.records[record.lease_id] = record
            is_dropped = await self._adopt_or_end(
                record,
                is_gone=record.lease_id in ended,
                in_place=record.lease_id in in_place,
            )
            if is_dropped:
                dropped.append(record)
            elif record.has_tgt and self._table.is_current(record):
                self._unexamined.append(record)
            if number % _RECORDS_AT_A_TIME == 0:
                await asyncio.sleep(0)
        self._ended(dropped)
        # The clock may have been set while nobody looked.
        self._identities.clock_changed()
        if len(self._unexamined) <= _FEW:
            await self.examine()

    @property
    def is_examined(self) -> bool:
        """Whether `examine` has nothing to do."""
        return not self._unexamined

    async def examine(self) -> int:
        """End the leases whose containers were gone at the start, and return how many.

        Of the others, those that lack a file are given new ones soon. One that was released,
        renewed or asked for again meanwhile is left as it is.
        """
        records, self._unexamined = self._unexamined, []
        dropped = []
        for record in await self._liveness.gone(records, seconds=_FILES_SECONDS):
            async with self._locks.hold(record.lease_id):
                if self._table.is_current(record) and self._drop(record):
                    dropped.append(record)
        self._ended(dropped)
        alive = [r for r in records if self._table.is_current(r) and not r.revoked]
        in_place = await self._with_files_in_place(alive)
        for number, record in enumerate(alive):
            emit(Event.LEASE_ADOPTED, lease=record.lease_id, container=record.container)
            if record.lease_id not in in_place and self._table.is_current(record):
                for name in self._table.names(record):
                    self._identities.hasten(name)
            if number % _LEASES_AT_A_TIME == 0:
                await asyncio.sleep(0)
        return len(dropped)

    def _drop(self, record: LeaseRecord) -> bool:
        """End a lease; return whether that worked, which the next sweep tries again if not."""
        try:
            self._ends.drop(record.lease_id)
        except Exception as error:  # noqa: BLE001 - it costs this lease only
            emit(Event.INTERNAL_ERROR, path=record.lease_id, error=type(error).__name__)
            return False
        emit(Event.LEASE_NOT_ADOPTED, lease=record.lease_id, container=record.container)
        return True

    def _ended(self, dropped: Iterable[LeaseRecord]) -> None:
        """Write which leases were dropped into the audit log, and close what they kept open."""
        # One that was being made has no grant in the audit log that would need an end.
        granted = [record for record in dropped if record.ready]
        self._background.start(self._audit.not_adopted(granted))
        self._files.homes.close_to_others(self._table.records.values())

    def _read_journal(self) -> list[LeaseRecord]:
        """Return the records that can be read; of the others the files are wiped."""
        self._journal.remove_leftovers()
        records = []
        for record in list(self._journal.records()):
            if isinstance(record, str):
                emit(Event.JOURNAL_RECORD_UNREADABLE, lease=record)
                self._files.homes.wipe(record)
                self._ends.forget(record)
            else:
                records.append(record)
        return records

    async def _adopt_or_end(self, record: LeaseRecord, *, is_gone: bool, in_place: bool) -> bool:
        """Adopt or revoke a lease of an earlier run; return whether it was dropped instead."""
        is_dropped = False
        try:
            self._table.sources[record.lease_id] = source_of_record(
                record.host_source, home=record.domain, lease_id=record.lease_id
            )
            if is_gone:
                raise _container_gone(record)
            refused = self._ends.refused(record)
            if refused is not None:
                await self._ends.revoke(record, refused)
                return False
            self._adopt(record, in_place=in_place)
        except Exception as error:  # noqa: BLE001 - it costs this lease, and no other
            if not isinstance(error, CredspecError):
                emit(Event.INTERNAL_ERROR, path=record.lease_id, error=type(error).__name__)
            is_dropped = self._drop(record)
        else:
            if not record.has_tgt:
                emit(Event.LEASE_ADOPTED, lease=record.lease_id, container=record.container)
        return is_dropped

    def _adopt(self, record: LeaseRecord, *, in_place: bool) -> None:
        """Take over one lease.

        Raises:
            CredspecError: it must end.
        """
        if record.revoked:
            return  # it holds nothing, and is remembered so that it gets nothing
        if not record.ready or record.ticket_start is None or record.ticket_end is None:
            raise _container_gone(record)
        for name in self._table.names(record):
            self._identities.adopt(
                name,
                record.lease_id,
                start=record.ticket_start,
                end=record.ticket_end,
                tickets_in_place=in_place or record.has_tgt,
                keytab_due=record.keytab_due or (record.created if record.keytab else None),
            )
        if not record.has_tgt:
            self._services.adopt(record, in_place=in_place)

    async def _with_files_in_place(self, records: Iterable[LeaseRecord]) -> set[str]:
        """Return which leases have all their files; of those that cannot be looked at, it is taken.

        What an earlier run had begun to write is removed.
        """

        async def has_all(home: Home, record: LeaseRecord) -> bool:
            try:
                return await self._files.run(
                    home, partial(home.holds, file_names(record)), _FILES_SECONDS
                )
            except CredspecError:
                return True

        found = set()
        of_users = []
        for number, record in enumerate(records):
            home = self._files.homes.of(record)
            if home.user is not None:
                # Their files may not answer: all are asked at once.
                of_users.append((record, has_all(home, record)))
            elif await has_all(home, record):
                found.add(record.lease_id)
            if number % _LEASES_AT_A_TIME == 0:
                await asyncio.sleep(0)
        answers = await asyncio.gather(*(answer for _, answer in of_users))
        whole = (record for (record, _), answer in zip(of_users, answers, strict=True) if answer)
        return found.union(record.lease_id for record in whole)


def _container_gone(record: LeaseRecord) -> CredspecError:
    return CredspecError.of("container-gone", "the container is gone", where=record.lease_id)
