"""What one lease's KDC answers: each request after the policy, each decision in the audit log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Protocol

from credspec.agent.audit import AuditUnwritableError
from credspec.agent.broker.allowed import DeniedError, Patterns, check, of_any_realm
from credspec.agent.broker.decisions import Decisions
from credspec.agent.identities.identity import IdentityName
from credspec.agent.leases.record import LeaseRecord
from credspec.agent.leases.service_audit import ServiceDecision
from credspec.config.policy import Policy
from credspec.errors import CredspecError, NotPermittedError, UnreachableError
from credspec.kerberos.kdc.encryption import EncryptionKey
from credspec.kerberos.kdc.refusals import (
    KdcErrorCode,
    RefusedRequestError,
)
from credspec.kerberos.kdc.reply import (
    GivenTicket,
    error_reply,
    referral_reply,
    ticket_reply,
)
from credspec.kerberos.kdc.request import (
    RequestReader,
    TgsRequest,
    named_service,
)
from credspec.kerberos.kdc_errors import ServiceUnknownError
from credspec.kerberos.service_credentials import ServiceTicket
from credspec.kerberos.service_names import ServiceName, ServicePattern
from credspec.rate_limit import Clock

# Of a lease at a time: the calls to a domain are made one after another, for all leases.
_MOST_ASKING: Final = 2
# A client waits for ten.
_KDC_SECONDS: Final = 8.0
_LEAST_LIFE: Final = timedelta(seconds=1)


class Tickets(Protocol):
    """Where tickets of services come from, see `ServiceTickets`."""

    async def get(
        self, name: IdentityName, holder: str, service: ServiceName, life: timedelta
    ) -> ServiceTicket:
        """Return one with half of its life left at least."""

    def fresh(
        self, name: IdentityName, service: ServiceName, life: timedelta
    ) -> ServiceTicket | None:
        """Return such a one without asking anybody, None if there is none."""

    def held(
        self, name: IdentityName, service: ServiceName, life: timedelta
    ) -> ServiceTicket | None:
        """Return one that has not ended, without asking anybody."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as it is now: its record, its identities, and the realms that it may ask."""

    record: LeaseRecord
    identities: tuple[IdentityName, ...]
    realms: frozenset[str]


class LeaseKdc:
    """Answers the requests of one lease.

    `lease` returns the lease as it is now, None once it has ended; `policy` what counts now. A
    domain controller is waited for so many `seconds`.
    """

    def __init__(
        self,
        key: EncryptionKey,
        lease: Callable[[], Lease | None],
        tickets: Tickets,
        decisions: Decisions,
        *,
        policy: Callable[[], Policy],
        now: Callable[[], datetime],
        clock: Clock = time.monotonic,
        seconds: float = _KDC_SECONDS,
    ) -> None:
        self._seconds = seconds
        self._asking = asyncio.Semaphore(_MOST_ASKING)
        self._key = key
        self._reader = RequestReader(key)
        self._lease = lease
        self._tickets = tickets
        self._decisions = decisions
        self._policy = policy
        self._now = now
        self._clock = clock

    async def answer(self, data: bytes) -> bytes:
        """Return the reply to a message; there is always one."""
        lease = self._lease()
        try:
            request = self._reader.read(data, self._now())
        except RefusedRequestError as error:
            if lease is not None:
                await self._decisions.unreadable(lease.record, error)
            return error_reply(error.code, error.service, self._now())
        if lease is None:
            return error_reply(KdcErrorCode.POLICY, request.service, self._now())
        try:
            return await self._granted(lease, request)
        except DeniedError as error:
            await self._decisions.denied(self._decision(lease, request), error.reason)
            code = KdcErrorCode.POLICY
        except CredspecError as error:
            code = _code_of(error)
        return error_reply(code, request.service, self._now())

    def too_big(self, data: bytes) -> bytes:
        """Return the answer to a datagram: to ask by TCP (RFC 4120 7.2.1)."""
        return error_reply(KdcErrorCode.RESPONSE_TOO_BIG, named_service(data), self._now())

    async def _granted(self, lease: Lease, request: TgsRequest) -> bytes:
        """Return the reply with a ticket or a referral.

        Raises:
            DeniedError: the policy, or the lease itself, does not allow it.
            CredspecError: no ticket can be had, or the audit log cannot be written.
        """
        started = self._clock()
        asked = request.service
        own = request.decoy.client_realm
        if asked.is_krbtgt:
            return self._referral(lease, request)
        name = ServiceName.parse(str(asked))
        if name is None:
            raise DeniedError("not the name of a service: CLASS/HOST[:PORT], never kadmin")
        if asked.realm.upper() == own.upper():
            # The account's KDC refers to another realm if the service is there.
            name = replace(name, realm=None)
        limits = self._limits(lease, request)
        for patterns in limits:
            check(of_any_realm(patterns), name, own)
        decision = self._decision(lease, request)
        try:
            ticket, source = await self._ticket(lease, request, name)
        except CredspecError as error:
            await self._decisions.failed(decision, error)
            raise
        found = replace(name, realm=ticket.realm.upper())
        covering = [check(patterns, found, own) for patterns in limits]
        if ticket.realm.upper() != asked.realm.upper():
            return self._referred(lease, request, ticket.realm)
        if ticket.enctype not in request.enctypes:
            return error_reply(KdcErrorCode.ETYPE_UNSUPPORTED, asked, self._now())
        pattern = next((each for each in covering if each is not None), None)
        await self._decisions.granted(replace(decision, pattern=pattern), ticket)
        now = self._now()
        # Clients refuse what ends later than they asked for, if by the seconds that it took.
        end = min(ticket.end, request.till) if request.till > now else ticket.end
        reply = ticket_reply(request, _given(ticket, end), now)
        self._decisions.took(source, self._clock() - started)
        return reply

    async def _ticket(
        self, lease: Lease, request: TgsRequest, name: ServiceName
    ) -> tuple[ServiceTicket, str]:
        """Return a ticket that ends when the client and the policy want it to, or earlier.

        With it comes its source, as of `ServiceAudit`.
        """
        identity = _identity(lease, request)
        life = self._policy().life_of(name.service_class)
        now = self._now()
        left = request.till - now
        if left > timedelta():
            life = _ending_in(left, life)
        fresh = self._tickets.fresh(identity, name, life)
        if fresh is not None:
            return fresh, "memory"
        failure: CredspecError
        try:
            async with asyncio.timeout(self._seconds), self._asking:
                holder = lease.record.lease_id
                return await self._tickets.get(identity, holder, name, life), "domain"
        except TimeoutError:
            failure = UnreachableError.of(
                "kdc-unreachable",
                f"no domain controller answered within {self._seconds:.0f} s",
                where=f"ticket of {name}",
            )
        except UnreachableError as error:
            failure = error.detached()
        held = self._tickets.held(identity, name, life)
        if held is None:
            raise failure
        return held, "domain"

    def _referral(self, lease: Lease, request: TgsRequest) -> bytes:
        """Answer a request for the TGT of another realm with a decoy for it."""
        parts = request.service.parts
        is_own = parts[-1].upper() == request.decoy.client_realm.upper()
        if len(parts) != 2 or is_own:  # noqa: PLR2004 - krbtgt/REALM
            raise DeniedError("a ticket-granting ticket")
        return self._referred(lease, request, parts[1])

    def _referred(self, lease: Lease, request: TgsRequest, realm: str) -> bytes:
        if realm.upper() not in lease.realms:
            raise DeniedError(f"a service of realm {realm}, which no pattern names")
        return referral_reply(request, self._key, realm.upper(), self._now())

    def _limits(self, lease: Lease, request: TgsRequest) -> tuple[Patterns, Patterns]:
        """Return what the lease asked for and what the policy allows, None for no limit."""
        asked = [ServicePattern.parse(text) for text in lease.record.services]
        return (
            tuple(pattern for pattern in asked if pattern is not None) if asked else None,
            self._policy().services_of(request.decoy.account),
        )

    def _decision(self, lease: Lease, request: TgsRequest) -> ServiceDecision:
        return ServiceDecision(
            record=lease.record,
            account=request.decoy.account,
            service=request.service.spn,
            requested=str(request.service),
            via="kdc",
        )


def _identity(lease: Lease, request: TgsRequest) -> IdentityName:
    for name in lease.identities:
        if f"{name.account}@{name.domain}" == request.decoy.account:
            return name
    raise DeniedError("the container has this account no more")


def _ending_in(left: timedelta, life: timedelta) -> timedelta:
    """Return a life, or what is left after halving it again and again until it ends in time.

    A ticket is held for each life of a service: a container must not choose how many these are.
    """
    while life > left and life > _LEAST_LIFE:
        life = timedelta(seconds=life // timedelta(seconds=2))
    return max(life, _LEAST_LIFE)


def _given(ticket: ServiceTicket, end: datetime) -> GivenTicket:
    return GivenTicket(
        ticket=ticket.ticket,
        enctype=ticket.enctype,
        key=ticket.key,
        realm=ticket.realm,
        flags=ticket.flags,
        authenticated=ticket.authenticated,
        start=ticket.start,
        end=end,
    )


def _code_of(error: CredspecError) -> KdcErrorCode:
    """Return the error for a client when no ticket can be had."""
    if isinstance(error, ServiceUnknownError):
        return KdcErrorCode.UNKNOWN_SERVICE
    if isinstance(error, UnreachableError):
        return KdcErrorCode.SERVICE_UNAVAILABLE
    if isinstance(error, NotPermittedError | AuditUnwritableError):
        return KdcErrorCode.POLICY
    return KdcErrorCode.GENERIC
