"""What each call of credentials-fetcher's interface does; `ticket_leases` has the leases."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from credspec.agent.audit import Caller
from credspec.agent.doors.credentials_fetcher import aws
from credspec.agent.doors.credentials_fetcher import credentialsfetcher_pb2 as wire
from credspec.agent.doors.credentials_fetcher.caller_threads import CallerThreads
from credspec.agent.doors.credentials_fetcher.lease_entries import (
    directory_of,
)
from credspec.agent.doors.credentials_fetcher.lease_tree import LeaseTree
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
from credspec.agent.doors.credentials_fetcher.ticket_leases import TicketLeases
from credspec.agent.leases.leases import Leases
from credspec.config.credentials_fetcher import FetcherConfig
from credspec.errors import (
    CredspecError,
    NotFoundError,
    UnreachableError,
    UsageError,
    joined,
)

if TYPE_CHECKING:
    from google.protobuf.message import Message

_LEASE_ID_BYTES: Final = 10
_BLOCKING_SECONDS: Final = 60.0

_T = TypeVar("_T")
_Q = TypeVar("_Q")


@dataclass(frozen=True, slots=True)
class Granted:
    """The answer to a call that made a lease, and what undoes it if the answer does not arrive."""

    answer: Message
    lease: str
    undo: Callable[[], None]


class Service:
    """What the calls do, for those whom the configuration lets call; `leases` are those made."""

    def __init__(self, leases: Leases, tree: LeaseTree, config: FetcherConfig) -> None:
        self._policy = leases.policy
        self.leases = TicketLeases(leases, tree, config)
        self._threads = CallerThreads()
        self._collecting = SoonCollected()

    def may_call(self, uid: int) -> bool:
        """Return whether a user may call at all."""
        return self._policy.policy.allows_grpc_user(uid)

    async def health(self, request: wire.HealthCheckRequest, caller: Caller) -> Message:
        """Say that it lives."""
        del request, caller
        return wire.HealthCheckResponse(status="OK")

    async def add(self, request: wire.CreateKerberosLeaseRequest, caller: Caller) -> Granted:
        """Make a lease, with what the specs or the host log on with."""
        wanted = await self._read_specs(request.credspec_contents, caller)
        lease = secrets.token_hex(_LEASE_ID_BYTES)
        entries, undo = await self.leases.make(
            lease, [(ticket, None, "") for ticket in wanted], caller
        )
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
        entries, undo = await self.leases.make(
            lease, [(ticket, user, "") for ticket in wanted], caller
        )
        answer = wire.CreateNonDomainJoinedKerberosLeaseResponse(
            lease_id=lease, created_kerberos_file_paths=map(directory_of, entries)
        )
        return Granted(answer, lease, undo)

    async def renew_with_user(
        self, request: wire.RenewNonDomainJoinedKerberosLeaseRequest, caller: Caller
    ) -> Message:
        """Renew the leases of a user, with the password given."""
        old, user = renewed_user(request.username, request.password, request.domain)
        entries = self.leases.entries_of({old, user.name}, user.domain, caller)
        if not entries:
            raise _nothing_renewed(f"no lease of user {old}@{user.domain}", f"user {user}")
        failures = await self.leases.renew(
            [(lease, entry, user) for lease, entry in entries], caller
        )
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
        entries, undo = await self.leases.make(lease, wanted, caller)
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
        entries = [pair for pair in self.leases.entries(caller) if pair[1].secret_arn]
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
        failures += await self.leases.renew(
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

    async def delete(self, request: wire.DeleteKerberosLeaseRequest, caller: Caller) -> Message:
        """End a lease; one that does not exist is fine."""
        lease = valid_lease_id(request.lease_id)
        entries = await self.leases.end(lease, caller)
        return wire.DeleteKerberosLeaseResponse(
            lease_id=lease, deleted_kerberos_file_paths=[entry.file for entry in entries]
        )


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
