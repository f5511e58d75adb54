"""Leases of credentials-fetcher's interface: their tickets, in credspec's leases and in the tree.

A lease there holds the tickets of several specs; here each of them is a lease of its own, whose id
is a hash of the lease's and the directory's names, so nothing needs to remember which. Identities
are shared, renewed in their time, and written to the journal first, as for every container.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final, TypeAlias, TypeVar

from credspec.agent.audit import Caller
from credspec.agent.completion import completed
from credspec.agent.doors.credentials_fetcher.caller_threads import CallerThreads
from credspec.agent.doors.credentials_fetcher.lease_entries import (
    CACHE,
    LeaseEntries,
    directory_of,
    name_of,
)
from credspec.agent.doors.credentials_fetcher.lease_tree import LeaseTree
from credspec.agent.doors.credentials_fetcher.requests import (
    RefusedCallError,
    UserPassword,
    WantedTicket,
    why_no_ticket,
)
from credspec.agent.leases.leases import Leases
from credspec.agent.leases.record import LeaseRecord
from credspec.agent.leases.request import LeaseRequest
from credspec.agent.report_limit import LimitedEvents
from credspec.config.credentials_fetcher import FetcherConfig
from credspec.errors import CredspecError, NotFoundError, NotPermittedError, joined
from credspec.fetcher_lease_files import TicketEntry, metadata_text, read_metadata
from credspec.providers.provider import HostAccount
from credspec.service.events import Event, emit
from credspec.service.keyed_lock import KeyedLock
from credspec.spec.document import CredentialSpec

_TREE_SECONDS: Final = 10.0
_TREE_THREADS: Final = 4
_MOST_NOTES: Final = 8
_ROOT: Final = 0

_T = TypeVar("_T")
Wanted: TypeAlias = tuple[WantedTicket, UserPassword | None, str]
"""A ticket to make, the user who logs on for it, and the ARN of that user's secret."""


class TicketLeases:
    """All leases of the interface; what one call makes or ends is made or ended as a whole."""

    def __init__(self, leases: Leases, tree: LeaseTree, config: FetcherConfig) -> None:
        self._leases = leases
        self._tree = tree
        self._config = config
        self._tickets = LeaseEntries()
        self._locks: KeyedLock[str] = KeyedLock()
        # The tree has threads of its own: what was begun is undone even if AWS does not answer.
        self._threads = CallerThreads(_TREE_THREADS)
        self._undoing: set[asyncio.Task[None]] = set()
        self._events = LimitedEvents()

    def ids(self) -> list[str]:
        """Return the ids of the leases that there are."""
        return self._tickets.leases()

    async def take_over(self) -> None:
        """Take over the leases of an earlier run that were adopted, and remove what else is there.

        A lease of which anything is missing is removed: it was being made, or being ended.

        Raises:
            NotPermittedError, UsageError: as `LeaseTree.check`.
        """
        self._tree.check()
        adopted = {r.place: r for r in self._leases.all() if r.place is not None}
        for lease in self._tree.leases():
            entries = self._written(lease)
            records = [adopted.get(directory_of(entry)) for entry in entries]
            users = {record.user for record in records if record is not None}
            if entries and None not in records:
                self._tickets.put(lease, entries, users)
        for place, record in adopted.items():
            if place not in self._tickets.directories():
                await self._ended(record.lease_id)
        for lease in self._tree.leases():
            self._tree.remove(lease, frozenset(map(name_of, self._tickets.of(lease))))

    def _written(self, lease: str) -> list[TicketEntry]:
        """Return what a lease's metadata says, nothing if it is damaged."""
        try:
            data = self._tree.read_metadata(lease)
            return [] if data is None else read_metadata(data)
        except Exception as error:  # noqa: BLE001 - it costs this lease, and no other
            known = isinstance(error, CredspecError)
            text = str(error) if known else type(error).__name__
            emit(Event.JOURNAL_RECORD_UNREADABLE, lease=lease, error=text)
            return []

    async def _ended(self, own: str) -> None:
        try:
            await self._leases.release(own)
        except Exception as error:  # noqa: BLE001 - the others are taken over nevertheless
            emit(Event.INTERNAL_ERROR, path=own, error=type(error).__name__)

    async def settled(self) -> None:
        """Wait for what is being undone."""
        if self._undoing:
            await asyncio.wait(self._undoing, timeout=_TREE_SECONDS)

    def entries(self, caller: Caller) -> list[tuple[str, TicketEntry]]:
        """Return all tickets that a caller may change, with their leases."""
        if caller.uid == _ROOT:
            return self._tickets.pairs()
        pairs = self._tickets.pairs(caller.uid)
        return [(lease, entry) for lease, entry in pairs if self._is_of(caller, lease, entry)]

    def entries_of(
        self, names: set[str], domain: str, caller: Caller
    ) -> list[tuple[str, TicketEntry]]:
        """Return those of a user, by any of the user's names in a domain."""
        wanted = {name.lower() for name in names}
        return [
            (lease, entry)
            for lease, entry in self.entries(caller)
            if entry.user.lower() in wanted and entry.user_domain == domain
        ]

    async def make(
        self, lease: str, wanted: Sequence[Wanted], caller: Caller
    ) -> tuple[list[TicketEntry], Callable[[], None]]:
        """Make the tickets of a lease, all of them or none; return them, and what undoes that.

        Raises:
            NotPermittedError: `lease-not-yours`.
            RefusedCallError: with what is wrong with a ticket.
            CredspecError: as `LeaseTree.make`.
        """
        async with self._locks.hold(lease):
            self._check_owner(lease, caller)
            for ticket, _, _ in wanted:
                if ticket.notes:
                    text = "; ".join(ticket.notes[:_MOST_NOTES])
                    self._events.emit(
                        Event.SPEC_INCOMPLETE, caller.uid, path=f"lease {lease}", error=text
                    )
            made = [self._entry(lease, *each) for each in wanted]
            try:
                await self._in_tree(lambda: [self._tree.make(lease, name_of(e)) for e in made])
                records = await self._make_each(lease, wanted, caller)
                files = {entry.file for entry in made}
                entries = [e for e in self._tickets.of(lease) if e.file not in files] + made
                await self._write_metadata(lease, entries)
            except BaseException:
                # The caller may have gone, but what was begun is undone.
                await completed(self._release(lease, made, caller))
                raise
            self._tickets.put(lease, entries, {_user(caller)})
            return made, self._undo(lease, list(zip(made, records, strict=True)), caller)

    async def renew(
        self, entries: Sequence[tuple[str, TicketEntry, UserPassword]], caller: Caller
    ) -> list[CredspecError]:
        """Renew tickets as the users given with them; return what failed."""
        failures: list[CredspecError] = []
        unchanged: list[str] = []
        for lease, entry, user in entries:
            async with self._locks.hold(lease):
                if entry not in self._tickets.of(lease):
                    continue  # it has ended meanwhile
                own = _own_id(lease, name_of(entry))
                try:
                    before = self._leases.get(own)
                    account = _account(user)
                    given = await self._leases.replace_host_account(own, account, caller)
                    if given is before:
                        unchanged.append(own)
                        continue
                    after = replace(entry, user=user.name, user_domain=user.domain)
                    self._tickets.replace(lease, entry, after)
                    await self._write_metadata(lease, self._tickets.of(lease))
                except CredspecError as error:
                    failures.append(error.detached())
        return failures + await self._leases.refresh(unchanged)

    async def end(self, lease: str, caller: Caller) -> list[TicketEntry]:
        """End a lease, and return the tickets that it had; one that does not exist is fine.

        Raises:
            NotPermittedError: `lease-not-yours`.
        """
        async with self._locks.hold(lease):
            self._check_owner(lease, caller)
            entries = self._tickets.of(lease)
            await completed(self._release(lease, entries, caller))
        return entries

    def _is_of(self, caller: Caller, lease: str, entry: TicketEntry) -> bool:
        try:
            return self._leases.get(_own_id(lease, name_of(entry))).user == caller.uid
        except NotFoundError:
            return False

    def _is_there(self, lease: str, entry: TicketEntry) -> bool:
        try:
            self._leases.get(_own_id(lease, name_of(entry)))
        except NotFoundError:
            return False
        return True

    def _check_owner(self, lease: str, caller: Caller) -> None:
        # One whose lease the policy has ended has no owner, and must not keep the others alive.
        left = [entry for entry in self._tickets.of(lease) if self._is_there(lease, entry)]
        if caller.uid != _ROOT and not all(self._is_of(caller, lease, entry) for entry in left):
            raise NotPermittedError.of(
                "lease-not-yours", "another user has this lease", where=lease
            )

    def _undo(
        self, lease: str, made: Sequence[tuple[TicketEntry, LeaseRecord]], caller: Caller
    ) -> Callable[[], None]:
        """Return what ends tickets that nobody knows of; to be called in the event loop."""

        def undo() -> None:
            while begin:
                task = asyncio.get_running_loop().create_task(begin.pop()())
                self._undoing.add(task)
                task.add_done_callback(self._undoing.discard)

        begin = [partial(self._undone, lease, made, caller)]
        return undo

    async def _undone(
        self, lease: str, made: Sequence[tuple[TicketEntry, LeaseRecord]], caller: Caller
    ) -> None:
        try:
            async with self._locks.hold(lease):
                # Others may have ended them meanwhile, or asked for the same once more.
                own = [entry for entry, record in made if self._is_still(record)]
                if own:
                    text = "the answer did not reach the caller; the lease is released"
                    self._events.emit(
                        Event.REQUEST_FAILED, caller.uid, path=f"lease {lease}", error=text
                    )
                    await self._release(lease, own, caller)
        except Exception as error:  # noqa: BLE001 - nobody waits for it
            known = isinstance(error, CredspecError)
            text = str(error) if known else type(error).__name__
            emit(Event.INTERNAL_ERROR, path=f"lease {lease}", error=text)

    def _is_still(self, record: LeaseRecord) -> bool:
        try:
            found = self._leases.get(record.lease_id)
        except NotFoundError:
            return False
        times = (found.created, found.created_monotonic)
        return times == (record.created, record.created_monotonic)

    async def _write_metadata(self, lease: str, entries: Sequence[TicketEntry]) -> None:
        text = metadata_text(list(entries))
        await self._in_tree(lambda: self._tree.write_metadata(lease, text.encode()))

    async def _make_each(
        self, lease: str, wanted: Sequence[Wanted], caller: Caller
    ) -> list[LeaseRecord]:
        requests = [self._request(lease, ticket, user, caller) for ticket, user, _ in wanted]
        results = await asyncio.gather(*map(self._leases.make, requests), return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        for failure in failures:
            if not isinstance(failure, CredspecError):
                raise failure
        errors = [failure for failure in failures if isinstance(failure, CredspecError)]
        if errors:
            has_user = any(user is not None for _, user, _ in wanted)
            raise RefusedCallError(why_no_ticket(errors[0], has_user=has_user), joined(errors))
        return [result for result in results if isinstance(result, LeaseRecord)]

    def _request(
        self, lease: str, ticket: WantedTicket, user: UserPassword | None, caller: Caller
    ) -> LeaseRequest:
        place = str(self._tree.path(lease, ticket.name))
        return LeaseRequest(
            lease_id=_own_id(lease, ticket.name),
            spec=ticket.spec if user is None else _without_host_account(ticket.spec),
            document_is_vouched_for=True,
            container=f"{lease}/{ticket.name}",
            runtime_state=place,
            uid=self._config.uid,
            gid=self._config.gid,
            mode=self._config.mode,
            place=place,
            host_account=None if user is None else _account(user),
            caller=caller,
        )

    def _entry(
        self, lease: str, ticket: WantedTicket, user: UserPassword | None, secret_arn: str
    ) -> TicketEntry:
        return TicketEntry(
            file=str(self._tree.path(lease, ticket.name) / CACHE),
            account=ticket.spec.default_account,
            domain=ticket.domain,
            user="" if user is None else user.name,
            user_domain="" if user is None else user.domain,
            spec_arn=ticket.spec_arn,
            secret_arn=secret_arn,
        )

    async def _release(self, lease: str, entries: Sequence[TicketEntry], caller: Caller) -> None:
        for entry in entries:
            await self._leases.release(_own_id(lease, name_of(entry)), caller)
        self._tickets.remove(lease, entries)
        left = self._tickets.of(lease)
        keep = frozenset(map(name_of, left))
        await self._in_tree(lambda: self._tree.remove(lease, keep))
        if left:
            # After a restart, a lease with an entry for something that is gone would end as well.
            with suppress(CredspecError):
                await self._write_metadata(lease, left)

    async def _in_tree(self, call: Callable[[], _T]) -> _T:
        return await self._threads.run(_ROOT, call, _TREE_SECONDS)


def _account(user: UserPassword) -> HostAccount:
    return HostAccount(user.domain, user.name, user.password)


def _without_host_account(spec: CredentialSpec) -> CredentialSpec:
    """Return a spec that does not say how to log on, since the call did."""
    directory = replace(spec.active_directory_config, host_account_config=None)
    return replace(spec, active_directory_config=directory)


def _own_id(lease: str, name: str) -> str:
    """Return the id of our lease for a directory of one of theirs."""
    return hashlib.sha256(f"credentials-fetcher/{lease}/{name}".encode()).hexdigest()[:32]


def _user(caller: Caller) -> int | None:
    """Return the unprivileged user who calls, None for the host's own, as leases have it."""
    return caller.uid if caller.uid not in {_ROOT, os.geteuid()} else None
