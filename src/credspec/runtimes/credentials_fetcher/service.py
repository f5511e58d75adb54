"""What each call of credentials-fetcher's interface does, in leases of ours.

A lease there holds the tickets of several specs; here each of them is a lease of its own, whose id
is a hash of the lease's and the directory's names, so nothing needs to remember which. Identities
are shared, renewed in their time, and written to the journal first, as for every container.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from credspec.agent.audit import Caller
from credspec.agent.config import FetcherConfig
from credspec.agent.events import Event, emit
from credspec.agent.leases import LeaseRequest, Leases
from credspec.errors import CredspecError, InvalidSpecError, internal_error
from credspec.runtimes.credentials_fetcher import credentialsfetcher_pb2 as wire
from credspec.runtimes.credentials_fetcher.connections import caller_of
from credspec.runtimes.credentials_fetcher.lease_tree import LeaseTree
from credspec.runtimes.credentials_fetcher.metadata import (
    TicketEntry,
    metadata_text,
    read_metadata,
)
from credspec.runtimes.credentials_fetcher.requests import (
    Refusal,
    RefusedCallError,
    WantedTicket,
    read_specs,
    valid_lease_id,
    why_no_ticket,
)

if TYPE_CHECKING:
    import grpc
    import grpc.aio
    from google.protobuf.message import Message

NAME: Final = "credentialsfetcher.CredentialsFetcherService"
CACHE: Final = "krb5cc"
_LEASE_ID_BYTES: Final = 10
_DEADLINE_SECONDS: Final = 120.0
# Answered later than this before its own deadline, a caller might never learn of its lease.
_ANSWER_SECONDS: Final = 0.1


class Service:
    """The calls, for those whom the configuration lets call."""

    def __init__(self, leases: Leases, tree: LeaseTree, config: FetcherConfig) -> None:
        self._leases = leases
        self._tree = tree
        self._config = config
        self._tickets: dict[str, list[TicketEntry]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def may_call(self, uid: int) -> bool:
        """Return whether a user may call at all."""
        return uid == 0 or uid in self._config.uids

    def leases(self) -> list[str]:
        """Return the ids of the leases that there are."""
        return sorted(self._tickets)

    def take_over(self) -> None:
        """Take over the leases of an earlier run that were adopted, and remove what else is there.

        Raises:
            NotPermittedError, UsageError: as `LeaseTree.check`.
        """
        self._tree.check()
        adopted = {record.place for record in self._leases.all() if record.place is not None}
        for lease in self._tree.leases():
            entries = [entry for entry in self._written(lease) if _directory(entry) in adopted]
            self._tree.remove(lease, frozenset(_name(entry) for entry in entries))
            if entries:
                self._tickets[lease] = entries

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
            ("DeleteKerberosLease", wire.DeleteKerberosLeaseRequest, self._delete),
            ("HealthCheck", wire.HealthCheckRequest, self._health),
        )
        return grpc.method_handlers_generic_handler(
            NAME,
            {
                name: grpc.unary_unary_rpc_method_handler(
                    self._answered(name, call),
                    request_deserializer=_reader(kind),
                    response_serializer=lambda answer: answer.SerializeToString(),
                )
                for name, kind, call in calls
            },
        )

    def _answered(
        self, name: str, call: Callable[[Any, Caller], Awaitable[Message]]
    ) -> Callable[[Any, Any], Awaitable[Message]]:
        """Return a call that says in credentials-fetcher's words what went wrong."""

        async def answer(request: Message | None, context: Any) -> Message:
            import grpc

            code = grpc.StatusCode.INTERNAL
            try:
                caller = caller_of(context.peer())
                if caller is None or not self.may_call(caller.uid):
                    await context.abort(grpc.StatusCode.PERMISSION_DENIED, "caller unknown")
                if request is None:
                    raise _unreadable()
                assert caller is not None  # noqa: S101 - narrows for the type checker
                left = context.time_remaining()
                patience = _DEADLINE_SECONDS if left is None else left - _ANSWER_SECONDS
                async with asyncio.timeout(min(patience, _DEADLINE_SECONDS)):
                    return await call(request, caller)
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
            except grpc.aio.BaseError:
                raise
            except Exception as error:  # noqa: BLE001 - the caller is told, and others are served
                emit(Event.INTERNAL_ERROR, path=name, error=type(error).__name__)
                text = str(internal_error(error, name))
            await context.abort(code, text)
            raise AssertionError("unreachable")

        return answer

    async def _health(self, request: wire.HealthCheckRequest, caller: Caller) -> Message:
        del request, caller
        return wire.HealthCheckResponse(status="OK")

    async def _add(self, request: wire.CreateKerberosLeaseRequest, caller: Caller) -> Message:
        wanted = read_specs(request.credspec_contents)
        lease = secrets.token_hex(_LEASE_ID_BYTES)
        entries = await self._make(lease, wanted, caller)
        return wire.CreateKerberosLeaseResponse(
            lease_id=lease, created_kerberos_file_paths=map(_directory, entries)
        )

    async def _delete(self, request: wire.DeleteKerberosLeaseRequest, caller: Caller) -> Message:
        lease = valid_lease_id(request.lease_id)
        async with self._locked(lease):
            entries = self._tickets.get(lease, [])
            await asyncio.shield(self._release(lease, entries, caller))
        return wire.DeleteKerberosLeaseResponse(
            lease_id=lease, deleted_kerberos_file_paths=[entry.file for entry in entries]
        )

    async def _make(
        self, lease: str, wanted: Sequence[WantedTicket], caller: Caller
    ) -> list[TicketEntry]:
        """Make the tickets of a lease, all of them or none."""
        async with self._locked(lease):
            made = [self._entry(lease, ticket) for ticket in wanted]
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

    async def _make_each(self, lease: str, wanted: Sequence[WantedTicket], caller: Caller) -> None:
        requests = [self._request(lease, ticket, caller) for ticket in wanted]
        results = await asyncio.gather(*map(self._leases.make, requests), return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        for failure in failures:
            if not isinstance(failure, CredspecError):
                raise failure
        problems = [p for f in failures if isinstance(f, CredspecError) for p in f.problems]
        if problems:
            first = failures[0]
            assert isinstance(first, CredspecError)  # noqa: S101 - narrows for the type checker
            error = type(first)(*dict.fromkeys(problems))
            raise RefusedCallError(why_no_ticket(first, has_user=False), error)

    def _request(self, lease: str, ticket: WantedTicket, caller: Caller) -> LeaseRequest:
        place = str(self._tree.make(lease, ticket.name))
        return LeaseRequest(
            lease_id=_own_id(lease, ticket.name),
            spec=f"raw://{ticket.spec.to_text(compact=True)}",
            container=f"{lease}/{ticket.name}",
            runtime_state=place,
            uid=self._config.uid,
            gid=self._config.gid,
            mode=self._config.mode,
            place=place,
            caller=caller,
        )

    def _entry(self, lease: str, ticket: WantedTicket) -> TicketEntry:
        return TicketEntry(
            file=str(self._tree.path(lease, ticket.name) / CACHE),
            account=ticket.spec.default_account,
            domain=ticket.domain,
            spec_arn=ticket.spec_arn,
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

    @asynccontextmanager
    async def _locked(self, lease: str) -> AsyncIterator[None]:
        lock = self._locks.setdefault(lease, asyncio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked() and lease not in self._tickets:
                self._locks.pop(lease, None)


def _reader(kind: type[Message]) -> Callable[[bytes], Message | None]:
    """Return what reads a message; None stands for bytes that are none."""

    def read(data: bytes) -> Message | None:
        from google.protobuf.message import DecodeError

        try:
            return kind.FromString(data)
        except DecodeError:
            return None

    return read


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


def _own_id(lease: str, name: str) -> str:
    """Return the id of our lease for a directory of one of theirs."""
    return hashlib.sha256(f"credentials-fetcher/{lease}/{name}".encode()).hexdigest()[:32]


def _files(entries: Sequence[TicketEntry]) -> set[str]:
    return {entry.file for entry in entries}


def _directory(entry: TicketEntry) -> str:
    return entry.file.removesuffix(f"/{CACHE}")


def _name(entry: TicketEntry) -> str:
    return _directory(entry).rpartition("/")[2]
