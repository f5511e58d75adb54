"""What each call of credentials-fetcher's interface does, in leases of ours.

A lease there holds the tickets of several specs; here each of them is a lease of its own, whose id
is a hash of the lease's and the directory's names, so nothing needs to remember which. Identities
are shared, renewed in their time, and written to the journal first, as for every container.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from credspec.agent.audit import Caller
from credspec.agent.config import FetcherConfig
from credspec.agent.events import Event, emit
from credspec.agent.keyed_lock import KeyedLock
from credspec.agent.leases import LeaseRequest, Leases
from credspec.errors import (
    CredspecError,
    InvalidSpecError,
    NotFoundError,
    NotPermittedError,
    UnreachableError,
    UsageError,
    internal_error,
)
from credspec.providers.host_account import HostAccount
from credspec.runtimes.credentials_fetcher import aws
from credspec.runtimes.credentials_fetcher import credentialsfetcher_pb2 as wire
from credspec.runtimes.credentials_fetcher.connections import caller_of
from credspec.runtimes.credentials_fetcher.lease_tree import LeaseTree
from credspec.runtimes.credentials_fetcher.metadata import (
    TicketEntry,
    metadata_text,
    read_metadata,
)
from credspec.runtimes.credentials_fetcher.requests import (
    AwsAccess,
    Refusal,
    RefusedCallError,
    SpecLocation,
    UserPassword,
    WantedTicket,
    aws_access,
    given_user,
    read_specs,
    refused_as,
    renewed_user,
    spec_locations,
    valid_lease_id,
    why_no_ticket,
)
from credspec.spec.document import CredentialSpec

if TYPE_CHECKING:
    import grpc
    import grpc.aio
    from google.protobuf.message import Message

NAME: Final = "credentialsfetcher.CredentialsFetcherService"
CACHE: Final = "krb5cc"
_LEASE_ID_BYTES: Final = 10
_BLOCKING_SECONDS: Final = 60.0
_THREADS: Final = 16
_DEADLINE_SECONDS: Final = 120.0
# Answered later than this before its own deadline, a caller might never learn of its lease.
_ANSWER_SECONDS: Final = 0.1


_T = TypeVar("_T")
_Q = TypeVar("_Q")
_Wanted: TypeAlias = tuple[WantedTicket, UserPassword | None, str]  # and the ARN of a secret


class Service:
    """The calls, for those whom the configuration lets call.

    `served` is called with the peer's address at the start of each call, and whether its request
    may hold a secret.
    """

    def __init__(
        self,
        leases: Leases,
        tree: LeaseTree,
        config: FetcherConfig,
        *,
        served: Callable[[str, bool], None] = lambda *_: None,
    ) -> None:
        self._leases = leases
        self._served = served
        self._tree = tree
        self._config = config
        self._tickets: dict[str, list[TicketEntry]] = {}
        self._locks: KeyedLock[str] = KeyedLock()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="fetcher")

    def may_call(self, uid: int) -> bool:
        """Return whether a user may call at all."""
        return self._leases.policy.policy.allows_grpc_user(uid)

    def leases(self) -> list[str]:
        """Return the ids of the leases that there are."""
        return sorted(self._tickets)

    async def take_over(self) -> None:
        """Take over the leases of an earlier run that were adopted, and remove what else is there.

        A lease of which anything is missing is removed: it was being made, or being ended.

        Raises:
            NotPermittedError, UsageError: as `LeaseTree.check`.
        """
        self._tree.check()
        adopted = {r.place: r.lease_id for r in self._leases.all() if r.place is not None}
        for lease in self._tree.leases():
            entries = self._written(lease)
            if entries and all(_directory(entry) in adopted for entry in entries):
                self._tickets[lease] = entries
        kept = {_directory(entry) for entries in self._tickets.values() for entry in entries}
        for place, own in adopted.items():
            if place not in kept:
                await self._leases.release(own)
        for lease in self._tree.leases():
            self._tree.remove(lease, frozenset(map(_name, self._tickets.get(lease, ()))))

    def _written(self, lease: str) -> list[TicketEntry]:
        data = self._tree.read_metadata(lease)
        try:
            return [] if data is None else read_metadata(data)
        except InvalidSpecError as error:
            emit(Event.JOURNAL_RECORD_UNREADABLE, lease=lease, error=str(error))
            return []

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the calls as gRPC takes them."""
        import grpc

        calls: tuple[tuple[str, type[Message], Any], ...] = (
            ("AddKerberosLease", wire.CreateKerberosLeaseRequest, self._add),
            (
                "AddNonDomainJoinedKerberosLease",
                wire.CreateNonDomainJoinedKerberosLeaseRequest,
                self._add_with_user,
            ),
            (
                "RenewNonDomainJoinedKerberosLease",
                wire.RenewNonDomainJoinedKerberosLeaseRequest,
                self._renew_with_user,
            ),
            ("AddKerberosArnLease", wire.KerberosArnLeaseRequest, self._add_by_arn),
            ("RenewKerberosArnLease", wire.RenewKerberosArnLeaseRequest, self._renew_by_arn),
            ("DeleteKerberosLease", wire.DeleteKerberosLeaseRequest, self._delete),
            ("HealthCheck", wire.HealthCheckRequest, self._health),
        )
        return grpc.method_handlers_generic_handler(
            NAME,
            {
                # Without a deserializer the bytes come as they are.
                name: grpc.unary_unary_rpc_method_handler(
                    self._answered(name, kind, call),
                    response_serializer=lambda answer: answer.SerializeToString(),
                )
                for name, kind, call in calls
            },
        )

    def _answered(
        self, name: str, kind: type[Message], call: Callable[[Any, Caller], Awaitable[Message]]
    ) -> Callable[[bytes, Any], Awaitable[Message]]:
        """Return a call that says in credentials-fetcher's words what went wrong."""

        async def answer(request: bytes, context: Any) -> Message:
            self._served(context.peer(), _may_hold_secret(name, request))
            outcome = await self._outcome(name, kind, call, request, context)
            # What ends the call leads in a circle to this frame, which may hold no password then.
            del request
            if not isinstance(outcome, tuple):
                return outcome
            await context.abort(*outcome)
            raise AssertionError("unreachable")

        return answer

    async def _outcome(
        self,
        name: str,
        kind: type[Message],
        call: Callable[[Any, Caller], Awaitable[Message]],
        request: bytes,
        context: Any,
    ) -> Message | tuple[grpc.StatusCode, str]:
        """Return a call's answer, or the status and text of its refusal."""
        import grpc

        code = grpc.StatusCode.INTERNAL
        try:
            caller = caller_of(context.peer())
            if caller is None or not self.may_call(caller.uid):
                return grpc.StatusCode.PERMISSION_DENIED, "caller unknown"
            message = _read(kind, request)
            left = context.time_remaining()
            patience = _DEADLINE_SECONDS if left is None else left - _ANSWER_SECONDS
            async with asyncio.timeout(min(patience, _DEADLINE_SECONDS)):
                return await call(message, caller)
        except RefusedCallError as refused:
            emit(Event.REQUEST_FAILED, method="gRPC", path=name, error=str(refused.error))
            text = str(refused)
        except TimeoutError:
            emit(Event.REQUEST_FAILED, method="gRPC", path=name, error="deadline")
            code = grpc.StatusCode.DEADLINE_EXCEEDED
            text = f"{Refusal.ACCOUNT_TICKET}: no answer in time"
        except CredspecError as error:
            emit(Event.REQUEST_FAILED, method="gRPC", path=name, error=str(error))
            text = str(error)
        except Exception as error:  # noqa: BLE001 - the caller is told, and others are served
            emit(Event.INTERNAL_ERROR, path=name, error=type(error).__name__)
            text = str(internal_error(error, name))
        return code, text

    async def _health(self, request: wire.HealthCheckRequest, caller: Caller) -> Message:
        del request, caller
        return wire.HealthCheckResponse(status="OK")

    async def _add(self, request: wire.CreateKerberosLeaseRequest, caller: Caller) -> Message:
        wanted = read_specs(request.credspec_contents)
        lease = secrets.token_hex(_LEASE_ID_BYTES)
        entries = await self._make(lease, [(ticket, None, "") for ticket in wanted], caller)
        return wire.CreateKerberosLeaseResponse(
            lease_id=lease, created_kerberos_file_paths=map(_directory, entries)
        )

    async def _add_with_user(
        self, request: wire.CreateNonDomainJoinedKerberosLeaseRequest, caller: Caller
    ) -> Message:
        user = given_user(request.username, request.password, request.domain)
        wanted = read_specs(request.credspec_contents)
        lease = secrets.token_hex(_LEASE_ID_BYTES)
        entries = await self._make(lease, [(ticket, user, "") for ticket in wanted], caller)
        return wire.CreateNonDomainJoinedKerberosLeaseResponse(
            lease_id=lease, created_kerberos_file_paths=map(_directory, entries)
        )

    async def _renew_with_user(
        self, request: wire.RenewNonDomainJoinedKerberosLeaseRequest, caller: Caller
    ) -> Message:
        old, user = renewed_user(request.username, request.password, request.domain)
        entries = self._entries_of({old, user.name}, user.domain, caller)
        if not entries:
            raise _nothing_renewed(f"no lease of user {old}@{user.domain}", user)
        failures = await self._renew([(lease, entry, user) for lease, entry in entries], caller)
        if failures:
            raise RefusedCallError(why_no_ticket(failures[0], has_user=True), _joined(failures))
        return wire.RenewNonDomainJoinedKerberosLeaseResponse(
            renewed_kerberos_file_paths=[entry.file for _, entry in entries]
        )

    async def _add_by_arn(self, request: wire.KerberosArnLeaseRequest, caller: Caller) -> Message:
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
        wanted = await self._in_thread(lambda: _in_time(partial(_fetched, access), locations))
        lease = locations[0].task
        entries = await self._make(lease, wanted, caller)
        return wire.CreateKerberosArnLeaseResponse(
            lease_id=lease,
            krb_ticket_response_map=[
                wire.KerberosTicketArnResponse(
                    credspec_arns=entry.spec_arn, created_kerberos_file_paths=_directory(entry)
                )
                for entry in entries
            ],
        )

    async def _renew_by_arn(
        self, request: wire.RenewKerberosArnLeaseRequest, caller: Caller
    ) -> Message:
        access = aws_access(
            request.access_key_id,
            request.secret_access_key,
            request.session_token,
            request.region,
        )
        entries = [pair for pair in self._all_entries(caller) if pair[1].secret_arn]
        asked = list({entry.secret_arn for _, entry in entries})
        fetched = await self._in_thread(lambda: _in_time(partial(_secret_or_why, access), asked))
        failures = [found.error for found in fetched if isinstance(found, RefusedCallError)]
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
            raise RefusedCallError(why_no_ticket(failures[0], has_user=True), _joined(failures))
        return wire.RenewKerberosArnLeaseResponse(status="successful")

    async def _in_thread(self, call: Callable[[], _T]) -> _T:
        """Run what blocks, in threads of our own; at its deadline it is given up."""
        try:
            async with asyncio.timeout(_BLOCKING_SECONDS):
                return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except TimeoutError:
            raise _too_late() from None

    def _all_entries(self, caller: Caller) -> list[tuple[str, TicketEntry]]:
        """Return all tickets that a caller may change, with their leases."""
        pairs = [(lease, entry) for lease, entries in self._tickets.items() for entry in entries]
        if caller.uid == 0:
            return pairs
        return [(lease, entry) for lease, entry in pairs if self._is_of(caller, lease, entry)]

    def _is_of(self, caller: Caller, lease: str, entry: TicketEntry) -> bool:
        try:
            return self._leases.get(_own_id(lease, _name(entry))).user == caller.uid
        except NotFoundError:
            return False

    def _is_there(self, lease: str, entry: TicketEntry) -> bool:
        try:
            self._leases.get(_own_id(lease, _name(entry)))
        except NotFoundError:
            return False
        return True

    def _check_owner(self, lease: str, caller: Caller) -> None:
        entries = self._tickets.get(lease, ())
        # One whose lease the policy has ended is nobody's, and must not keep the others alive.
        left = [entry for entry in entries if self._is_there(lease, entry)]
        if caller.uid != 0 and not all(self._is_of(caller, lease, entry) for entry in left):
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
                present = self._tickets.get(lease, [])
                if entry not in present:
                    continue  # it has ended meanwhile
                own = _own_id(lease, _name(entry))
                try:
                    before = self._leases.get(own)
                    account = _account(user)
                    given = await self._leases.replace_host_account(own, account, caller)
                    if given is before:
                        unchanged.append(own)
                        continue
                    after = replace(entry, user=user.name, user_domain=user.domain)
                    self._tickets[lease] = [after if e == entry else e for e in present]
                    text = metadata_text(self._tickets[lease])
                    self._tree.write_metadata(lease, text.encode())
                except CredspecError as error:
                    failures.append(error)
        return failures + await self._leases.refresh(unchanged)

    async def _delete(self, request: wire.DeleteKerberosLeaseRequest, caller: Caller) -> Message:
        lease = valid_lease_id(request.lease_id)
        async with self._locks.hold(lease):
            self._check_owner(lease, caller)
            entries = self._tickets.get(lease, [])
            await asyncio.shield(self._release(lease, entries, caller))
        return wire.DeleteKerberosLeaseResponse(
            lease_id=lease, deleted_kerberos_file_paths=[entry.file for entry in entries]
        )

    async def _make(
        self, lease: str, wanted: Sequence[_Wanted], caller: Caller
    ) -> list[TicketEntry]:
        """Make the tickets of a lease, all of them or none."""
        async with self._locks.hold(lease):
            self._check_owner(lease, caller)
            made = [self._entry(lease, *each) for each in wanted]
            try:
                await self._make_each(lease, wanted, caller)
                present = [e for e in self._tickets.get(lease, []) if e.file not in _files(made)]
                self._tree.write_metadata(lease, metadata_text([*present, *made]).encode())
            except BaseException:
                # The caller may have gone, but what was begun is taken back.
                await asyncio.shield(self._release(lease, made, caller))
                raise
            self._tickets[lease] = [*present, *made]
            return made

    async def _make_each(self, lease: str, wanted: Sequence[_Wanted], caller: Caller) -> None:
        requests = [self._request(lease, ticket, user, caller) for ticket, user, _ in wanted]
        results = await asyncio.gather(*map(self._leases.make, requests), return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        for failure in failures:
            if not isinstance(failure, CredspecError):
                raise failure
        problems = [p for f in failures if isinstance(f, CredspecError) for p in f.problems]
        if problems:
            first = failures[0]
            assert isinstance(first, CredspecError)  # noqa: S101 - narrows for the type checker
            has_user = any(user is not None for _, user, _ in wanted)
            error = type(first)(*dict.fromkeys(problems))
            raise RefusedCallError(why_no_ticket(first, has_user=has_user), error)

    def _request(
        self, lease: str, ticket: WantedTicket, user: UserPassword | None, caller: Caller
    ) -> LeaseRequest:
        place = str(self._tree.make(lease, ticket.name))
        spec = ticket.spec if user is None else _without_host_account(ticket.spec)
        return LeaseRequest(
            lease_id=_own_id(lease, ticket.name),
            spec=f"raw://{spec.to_text(compact=True)}",
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
            await self._leases.release(_own_id(lease, _name(entry)), caller)
        gone = _files(entries)
        left = [entry for entry in self._tickets.get(lease, []) if entry.file not in gone]
        if left:
            self._tickets[lease] = left
        else:
            self._tickets.pop(lease, None)
        self._tree.remove(lease, frozenset(map(_name, left)))


def _may_hold_secret(name: str, request: bytes) -> bool:
    """Return whether a call's request may hold a password, in a field or in a spec."""
    if name in {"HealthCheck", "DeleteKerberosLease"}:
        return False
    # A key may be written with escapes.
    return name != "AddKerberosLease" or b"\\u" in request or b"plugin" in request.lower()


def _read(kind: type[Message], data: bytes) -> Message:
    """Read a message.

    Raises:
        RefusedCallError: with `Refusal.SPEC_MALFORMED`.
    """
    from google.protobuf.message import DecodeError

    with suppress(DecodeError):
        return kind.FromString(data)
    raise _unreadable()


def _unreadable() -> RefusedCallError:
    return RefusedCallError(
        Refusal.SPEC_MALFORMED,
        InvalidSpecError.of(
            "message-invalid",
            "the message is not of the interface",
            where="request",
            expected="fields of the published types, with text in UTF-8",
        ),
    )


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


def _secret_or_why(access: AwsAccess, arn: str) -> UserPassword | RefusedCallError:
    try:
        return aws.fetch_secret(access, arn)
    except RefusedCallError as refused:
        return refused


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


def _joined(errors: Sequence[CredspecError]) -> CredspecError:
    return type(errors[0])(*dict.fromkeys(p for error in errors for p in error.problems))


def _nothing_renewed(found: str, user: UserPassword) -> RefusedCallError:
    return RefusedCallError(
        Refusal.NOTHING_RENEWED,
        NotFoundError.of("lease-not-found", found, where=f"user {user}"),
    )


def _own_id(lease: str, name: str) -> str:
    """Return the id of our lease for a directory of one of theirs."""
    return hashlib.sha256(f"credentials-fetcher/{lease}/{name}".encode()).hexdigest()[:32]


def _files(entries: Sequence[TicketEntry]) -> set[str]:
    return {entry.file for entry in entries}


def _directory(entry: TicketEntry) -> str:
    return entry.file.removesuffix(f"/{CACHE}")


def _name(entry: TicketEntry) -> str:
    return _directory(entry).rpartition("/")[2]
