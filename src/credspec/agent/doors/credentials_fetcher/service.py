"""What each call of credentials-fetcher's interface does, in leases of credspec.

A lease there holds the tickets of several specs; here each of them is a lease of its own, whose id
is a hash of the lease's and the directory's names, so nothing needs to remember which. Identities
are shared, renewed in their time, and written to the journal first, as for every container.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from credspec.agent.audit import Caller
from credspec.agent.completion import completed
from credspec.agent.doors.credentials_fetcher import aws
from credspec.agent.doors.credentials_fetcher import credentialsfetcher_pb2 as wire
from credspec.agent.doors.credentials_fetcher.caller_threads import CallerThreads
from credspec.agent.doors.credentials_fetcher.lease_entries import (
    CACHE,
    LeaseEntries,
    directory_of,
    name_of,
)
from credspec.agent.doors.credentials_fetcher.lease_tree import LeaseTree
from credspec.agent.doors.credentials_fetcher.metadata import (
    TicketEntry,
    metadata_text,
    read_metadata,
)
from credspec.agent.doors.credentials_fetcher.requests import (
    MOST_SPECS,
    AwsAccess,
    Refusal,
    RefusedCallError,
    SpecLocation,
    UserPassword,
    WantedTicket,
    aws_access,
    new_user,
    read_specs,
    refused_as,
    renewed_user,
    spec_locations,
    valid_lease_id,
    why_no_ticket,
)
from credspec.agent.doors.credentials_fetcher.soon_collected import SoonCollected
from credspec.agent.leases.leases import Leases
from credspec.agent.leases.record import LeaseRecord
from credspec.agent.leases.request import LeaseRequest
from credspec.agent.report_limit import LimitedEvents
from credspec.config.credentials_fetcher import FetcherConfig
from credspec.errors import (
    CredspecError,
    NotFoundError,
    NotPermittedError,
    UnreachableError,
    UsageError,
    joined,
)
from credspec.providers.provider import HostAccount
from credspec.service.events import Event, emit
from credspec.service.keyed_lock import KeyedLock
from credspec.spec.document import CredentialSpec

if TYPE_CHECKING:
    from google.protobuf.message import Message

_LEASE_ID_BYTES: Final = 10
_BLOCKING_SECONDS: Final = 60.0
_TREE_SECONDS: Final = 10.0
_TREE_THREADS: Final = 4
_MOST_NOTES: Final = 8
_ROOT: Final = 0

_T = TypeVar("_T")
_Q = TypeVar("_Q")
_Wanted: TypeAlias = tuple[WantedTicket, UserPassword | None, str]  # and the ARN of a secret


@dataclass(frozen=True, slots=True)
class Granted:
    """The answer to a call that made a lease, and what undoes it if the answer does not arrive."""

    answer: Message
    lease: str
    undo: Callable[[], None]


class Service:
    """What the calls do, for those whom the configuration lets call."""

    def __init__(self, leases: Leases, tree: LeaseTree, config: FetcherConfig) -> None:
        self._leases = leases
        self._tree = tree
        self._config = config
        self._tickets = LeaseEntries()
        self._locks: KeyedLock[str] = KeyedLock()
        self._threads = CallerThreads()
        # The tree has threads of its own: what was begun is undone even if AWS does not answer.
        self._tree_threads = CallerThreads(_TREE_THREADS)
        self._collecting = SoonCollected()
        self._undoing: set[asyncio.Task[None]] = set()
        self._events = LimitedEvents()

    def may_call(self, uid: int) -> bool:
        """Return whether a user may call at all."""
        return self._leases.policy.policy.allows_grpc_user(uid)

    def leases(self) -> list[str]:
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

    async def health(self, request: wire.HealthCheckRequest, caller: Caller) -> Message:
        """Say that it lives."""
        del request, caller
        return wire.HealthCheckResponse(status="OK")

    async def settled(self) -> None:
        """Wait for what is being undone."""
        if self._undoing:
            await asyncio.wait(self._undoing, timeout=_TREE_SECONDS)

    async def add(self, request: wire.CreateKerberosLeaseRequest, caller: Caller) -> Granted:
        """Make a lease, with what the specs or the host log on with."""
        wanted = await self._read_specs(request.credspec_contents, caller)
        lease = secrets.token_hex(_LEASE_ID_BYTES)
        entries, undo = await self._make(lease, [(ticket, None, "") for ticket in wanted], caller)
        answer = wire.CreateKerberosLeaseResponse(
            lease_id=lease, created_kerberos_file_paths=map(directory_of, entries)
        )
        return Granted(answer, lease, undo)

    async def add_with_user(
        self, request: wire.CreateNonDomainJoinedKerberosLeaseRequest, caller: Caller
    ) -> Granted:
        """Make a lease with a user's password."""
        user = new_user(request.username, request.password, request.domain)
        wanted = await self._read_specs(request.credspec_contents, caller)
        lease = secrets.token_hex(_LEASE_ID_BYTES)
        entries, undo = await self._make(lease, [(ticket, user, "") for ticket in wanted], caller)
        answer = wire.CreateNonDomainJoinedKerberosLeaseResponse(
            lease_id=lease, created_kerberos_file_paths=map(directory_of, entries)
        )
        return Granted(answer, lease, undo)

    async def renew_with_user(
        self, request: wire.RenewNonDomainJoinedKerberosLeaseRequest, caller: Caller
    ) -> Message:
        """Renew the leases of a user, with the password given."""
        old, user = renewed_user(request.username, request.password, request.domain)
        entries = self._entries_of({old, user.name}, user.domain, caller)
        if not entries:
            raise _nothing_renewed(f"no lease of user {old}@{user.domain}", f"user {user}")
        failures = await self._renew([(lease, entry, user) for lease, entry in entries], caller)
        if failures:
            raise RefusedCallError(why_no_ticket(failures[0], has_user=True), joined(failures))
        return wire.RenewNonDomainJoinedKerberosLeaseResponse(
            renewed_kerberos_file_paths=[entry.file for _, entry in entries]
        )

    async def add_by_arn(self, request: wire.KerberosArnLeaseRequest, caller: Caller) -> Granted:
        """Make a lease of specs in S3, with users in Secrets Manager."""
        access = aws_access(
            request.access_key_id,
            request.secret_access_key,
            request.session_token,
            request.region,
        )
        with refused_as(Refusal.ARN_EMPTY):
            if not request.credspec_arns:
                raise UsageError.of("arns-number", "no ARN", where="/credspec_arns")
        locations = spec_locations(request.credspec_arns)
        wanted = await self._from_aws(
            lambda: _in_time(partial(_fetched, access), locations), caller
        )
        lease = locations[0].task
        entries, undo = await self._make(lease, wanted, caller)
        answer = wire.CreateKerberosArnLeaseResponse(
            lease_id=lease,
            krb_ticket_response_map=[
                wire.KerberosTicketArnResponse(
                    credspec_arns=entry.spec_arn, created_kerberos_file_paths=directory_of(entry)
                )
                for entry in entries
            ],
        )
        return Granted(answer, lease, undo)

    async def renew_by_arn(
        self,
        request: wire.RenewKerberosArnLeaseRequest | wire.KerberosArnLeaseRequest,
        caller: Caller,
    ) -> Message:
        """Renew the leases whose users are in Secrets Manager, of some specs or of all."""
        access = aws_access(
            request.access_key_id,
            request.secret_access_key,
            request.session_token,
            request.region,
        )
        entries = [pair for pair in self._all_entries(caller) if pair[1].secret_arn]
        if isinstance(request, wire.KerberosArnLeaseRequest) and request.credspec_arns:
            of = {(each.task, each.arn) for each in spec_locations(request.credspec_arns)}
            entries = [(lease, e) for lease, e in entries if (lease, e.spec_arn) in of]
            if not entries:
                raise _nothing_renewed("no lease of these ARNs", "request")
        asked = list({entry.secret_arn for _, entry in entries})
        fetched = await self._from_aws(
            lambda: _in_time(partial(_secret_or_why, access), asked), caller
        )
        failures = [found for found in fetched if isinstance(found, CredspecError)]
        answers = dict(zip(asked, fetched, strict=True))
        failures += await self._renew(
            [
                (lease, entry, user)
                for lease, entry in entries
                if isinstance(user := answers[entry.secret_arn], UserPassword)
            ],
            caller,
        )
        if failures:
            raise RefusedCallError(why_no_ticket(failures[0], has_user=True), joined(failures))
        return wire.RenewKerberosArnLeaseResponse(status="successful")

    async def _read_specs(self, documents: Sequence[str], caller: Caller) -> list[WantedTicket]:
        """Read the specs of a request in a thread: a hundred of them take a while."""
        return await self._threads.run(
            caller.uid, partial(read_specs, list(documents[: MOST_SPECS + 1])), _BLOCKING_SECONDS
        )

    async def _from_aws(self, call: Callable[[], _T], caller: Caller) -> _T:
        try:
            return await self._threads.run(caller.uid, call, _BLOCKING_SECONDS)
        finally:
            # botocore's objects hold one another, and with them their input and answers.
            self._collecting.collect()

    async def _in_tree(self, call: Callable[[], _T]) -> _T:
        return await self._tree_threads.run(_ROOT, call, _TREE_SECONDS)

    def _all_entries(self, caller: Caller) -> list[tuple[str, TicketEntry]]:
        """Return all tickets that a caller may change, with their leases."""
        if caller.uid == _ROOT:
            return self._tickets.pairs()
        pairs = self._tickets.pairs(caller.uid)
        return [(lease, entry) for lease, entry in pairs if self._is_of(caller, lease, entry)]

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

    def _entries_of(
        self, names: set[str], domain: str, caller: Caller
    ) -> list[tuple[str, TicketEntry]]:
        wanted = {name.lower() for name in names}
        return [
            (lease, entry)
            for lease, entry in self._all_entries(caller)
            if entry.user.lower() in wanted and entry.user_domain == domain
        ]

    async def _renew(
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

    async def delete(self, request: wire.DeleteKerberosLeaseRequest, caller: Caller) -> Message:
        """End a lease; one that does not exist is fine."""
        lease = valid_lease_id(request.lease_id)
        async with self._locks.hold(lease):
            self._check_owner(lease, caller)
            entries = self._tickets.of(lease)
            await completed(self._release(lease, entries, caller))
        return wire.DeleteKerberosLeaseResponse(
            lease_id=lease, deleted_kerberos_file_paths=[entry.file for entry in entries]
        )

    async def _make(
        self, lease: str, wanted: Sequence[_Wanted], caller: Caller
    ) -> tuple[list[TicketEntry], Callable[[], None]]:
        """Make the tickets of a lease, all of them or none; return them, and what undoes that."""
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
        self, lease: str, wanted: Sequence[_Wanted], caller: Caller
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


def _account(user: UserPassword) -> HostAccount:
    return HostAccount(user.domain, user.name, user.password)


def _without_host_account(spec: CredentialSpec) -> CredentialSpec:
    """Return a spec that does not say how to log on, since the call did."""
    directory = replace(spec.active_directory_config, host_account_config=None)
    return replace(spec, active_directory_config=directory)


def _fetched(access: AwsAccess, location: SpecLocation) -> tuple[WantedTicket, UserPassword, str]:
    ticket = aws.fetch_spec(access, location)
    user, arn = aws.fetch_user(access, ticket)
    return ticket, user, arn


def _secret_or_why(access: AwsAccess, arn: str) -> UserPassword | CredspecError:
    try:
        return aws.fetch_secret(access, arn)
    except RefusedCallError as refused:
        return refused.error.detached()


def _in_time(fetch: Callable[[_Q], _T], questions: Sequence[_Q]) -> list[_T]:
    """Fetch one after another, but none after the deadline: nobody would wait for it."""
    end = time.monotonic() + _BLOCKING_SECONDS
    found = []
    for question in questions:
        if time.monotonic() > end:
            raise _too_late()
        found.append(fetch(question))
    return found


def _too_late() -> UnreachableError:
    return UnreachableError.of(
        "fetch-timeout", f"no answer within {_BLOCKING_SECONDS:.0f} s", where="request"
    )


def _nothing_renewed(found: str, where: str) -> RefusedCallError:
    return RefusedCallError(
        Refusal.NOTHING_RENEWED, NotFoundError.of("lease-not-found", found, where=where)
    )


def _own_id(lease: str, name: str) -> str:
    """Return the id of our lease for a directory of one of theirs."""
    return hashlib.sha256(f"credentials-fetcher/{lease}/{name}".encode()).hexdigest()[:32]


def _user(caller: Caller) -> int | None:
    """Return the unprivileged user who calls, None for the host's own, as leases have it."""
    return caller.uid if caller.uid not in {_ROOT, os.geteuid()} else None
