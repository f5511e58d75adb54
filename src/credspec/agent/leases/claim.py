"""Claims: all that may refuse a lease, asked before the first effect of making it.

In this order: how many leases a user asks for and has, whose files they are to be, where the spec
comes from, the spec itself, its accounts by the policy, what to log on with, the spec's domain, the
names that its accounts' domains have, and those accounts by the policy again.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Final, NamedTuple

from credspec.agent.blocking_calls import BlockingCalls, CallTimeoutError
from credspec.agent.identities.identities import Identities
from credspec.agent.leases.content import accounts_of, scopes_in, with_dns_names
from credspec.agent.leases.homes import Homes
from credspec.agent.leases.limits import LeaseLimits
from credspec.agent.leases.policy_check import check_lease
from credspec.agent.leases.record import LeaseRecord
from credspec.agent.leases.request import LeaseRequest, MalformedReference
from credspec.agent.leases.table import LeaseTable
from credspec.config.policy import PolicyInForce
from credspec.contract.service_names import BROKER
from credspec.directory.account_identity import valid_account_name
from credspec.directory.domain import DomainFacts, check_netbios_name, differences
from credspec.errors import (
    CredspecError,
    InvalidSpecError,
    NotPermittedError,
    Step,
    UnreachableError,
    during,
)
from credspec.providers.provider import (
    GivenAccount,
    HostAccount,
    HostSource,
    checked_account,
)
from credspec.providers.selection import Providers, plugin_source
from credspec.spec.document import CredentialSpec
from credspec.spec.spec_directory import SpecDirectory, load

_USER_SECONDS: Final = 10.0
_SPEC_SECONDS: Final = 10.0


class Claim(NamedTuple):
    """A lease that nothing speaks against: its record, and what it logs on with."""

    record: LeaseRecord
    source: HostSource | None


class Claims:
    """Examines requests. `homes_calls` has a thread for each user whose files may not answer."""

    def __init__(
        self,
        identities: Identities,
        table: LeaseTable,
        *,
        homes: Homes,
        homes_calls: BlockingCalls[int | None],
        specs: SpecDirectory,
        policy: PolicyInForce,
        providers: Providers,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._identities = identities
        self._table = table
        self._homes = homes
        self._homes_calls = homes_calls
        self._specs = specs
        self._spec_calls: BlockingCalls[int] = BlockingCalls()
        self._policy = policy
        self._providers = providers
        self._limits = LeaseLimits(lambda: policy.policy.leases_per_user)
        self._now = now
        self._monotonic = monotonic

    @contextlib.asynccontextmanager
    async def turn(self, request: LeaseRequest) -> AsyncIterator[None]:
        """Let an unprivileged user have a few leases made at a time, the others have theirs.

        Raises:
            TooManyRequestsError: `leases-too-often`.
        """
        if request.user is None:
            yield
            return
        self._limits.check_rate(request.user)
        async with self._limits.turn(request.user):
            yield

    async def of_caller(self, request: LeaseRequest) -> LeaseRequest:
        """Refuse an unprivileged user what is not its own; return the request as it is kept.

        Raises:
            NotPermittedError: `lease-not-yours`; and as `Home.checked_state`.
            TooManyRequestsError: `leases-too-many`.
            CredspecError: `user-lookup-timeout`.
        """
        user = request.user
        if user is None:
            return request
        present = self._table.records.get(request.lease_id)
        if present is not None and present.user != user:
            raise not_yours(request.lease_id)
        self._check_number(request)
        check = partial(self._homes.of(request).checked_state, request.uid, request.gid)
        try:
            # The host may look users up in a directory that does not answer.
            state = await self._homes_calls.run(user, check, _USER_SECONDS, f"user {user}")
        except CallTimeoutError:
            raise CredspecError.of(
                "user-lookup-timeout",
                f"no answer within {_USER_SECONDS:.0f} s",
                where=f"user {user}",
                remedy="look at the sources of passwd and group in /etc/nsswitch.conf",
            ) from None
        return replace(request, runtime_state=state)

    async def examine(self, request: LeaseRequest) -> Claim:
        """Return the lease that a request is for; what its domain says is asked, no password.

        Nothing has been awaited since the last check, how many leases the user has.

        Raises:
            InvalidSpecError: the spec cannot be read or used.
            NotPermittedError: the policy or the directory refuses.
            TooManyRequestsError: `leases-too-many`.
            CredspecError: of the step that failed.
        """
        if request.tickets == BROKER and not self._homes.of(request).has_network:
            raise NotPermittedError.of(
                "tickets-broker-place",
                "nobody opens a port in the network of what uses this directory",
                where="tickets",
                expected="tickets=broker with containers of an engine, or with credspec run",
                remedy="use tickets=services, with the services that are needed",
            )
        spec = await self._spec(request)
        accounts = accounts_of(spec)
        scopes = scopes_in(accounts)
        self._check_policy(
            request, spec, [a for a in accounts if a.partition("@")[2] not in scopes]
        )
        source = self._source(request, spec)
        facts = await self._facts(spec, source)
        domains = {
            scope: await self._identities.domain_named(scope, spec.domain, source)
            for scope in sorted(scopes)
        }
        record = LeaseRecord(
            lease_id=request.lease_id,
            container=request.container,
            runtime_state=request.runtime_state,
            uid=request.uid,
            gid=request.gid,
            mode=request.mode,
            keytab=request.keytab,
            name_fallback=request.name_fallback,
            replay_cache=request.replay_cache,
            user=request.user,
            place=request.place,
            domain=facts.dns_name,
            default_account=valid_account_name(spec.default_account),
            accounts=with_dns_names(accounts, domains, facts.dns_name),
            created=self._now(),
            created_monotonic=self._monotonic(),
            host_source=None if source is None else source.to_record(),
            spec_source=request.spec_source,
            tickets=request.tickets,
            services=request.services,
        )
        # Under the names that the domains have, whatever the spec calls them.
        check_lease(self._policy.policy, record)
        for scope, domain in domains.items():
            named = await self._identities.facts(domain, source)
            check_netbios_name(named, scope, facts.dns_name)
        self._check_number(request)
        return Claim(record, source)

    def given(self, account: HostAccount, home: str, lease_id: str) -> GivenAccount:
        """Return what to log on with for an account that came with a request, checked.

        Its password is kept for the lease. `home` is the DNS name of the lease's domain.

        Raises:
            NotPermittedError: `host-account-other-domain`.
            CredspecError: `host-account-invalid`.
        """
        with during(Step.HOST_LOGON):
            checked = checked_account(
                account.domain, account.user, account.password, "account of the request"
            )
            given = GivenAccount(checked, home)
            self._providers.check(given)
        return given.concealed(lambda text: self._table.secrets.keep(text, lease_id))

    def check_given(self, source: HostSource) -> None:
        """Refuse an account that came with a request, if it is not allowed any more.

        Raises as `given`.
        """
        with during(Step.HOST_LOGON):
            self._providers.check(source)

    def _check_number(self, request: LeaseRequest) -> None:
        if request.user is not None:
            records = self._table.records.values()
            others = (r for r in records if r.lease_id != request.lease_id)
            self._limits.check_number(request.user, others)

    async def _spec(self, request: LeaseRequest) -> CredentialSpec:
        if isinstance(request.spec, MalformedReference):
            raise InvalidSpecError(*request.spec.problems)
        if not request.document_is_vouched_for:
            self._policy.policy.check_spec_source(request.spec_source)
        if isinstance(request.spec, CredentialSpec):
            return request.spec
        # It may be on a network file system, and costs time to check.
        return await self._spec_calls.run(
            request.caller.uid,
            partial(load, request.spec, self._specs),
            _SPEC_SECONDS,
            "credential spec",
        )

    def _check_policy(
        self, request: LeaseRequest, spec: CredentialSpec, accounts: list[str]
    ) -> None:
        """Ask before anything is asked of a domain, with the names that the spec has."""
        policy = self._policy.policy
        policy.check_accounts(accounts, spec.domain)
        policy.check_tickets(request.tickets, accounts, spec.domain)
        if request.keytab:
            policy.check_keytabs(accounts, spec.domain)

    def _source(self, request: LeaseRequest, spec: CredentialSpec) -> HostSource | None:
        """Return what to log on with for a spec, None for the machine identity."""
        if request.host_account is not None:
            return self.given(request.host_account, spec.domain, request.lease_id)
        source = plugin_source(spec)
        if source is None:
            return None
        with during(Step.HOST_LOGON):
            self._providers.check(source)
        if self._providers.holds_secret(source):
            return source.concealed(lambda text: self._table.secrets.keep(text, request.lease_id))
        return source

    async def _facts(self, spec: CredentialSpec, source: HostSource | None) -> DomainFacts:
        """Return the facts of a spec's domain, which must be those that the spec holds."""
        facts = await self._identities.facts(spec.domain, source)
        try:
            _check_same_domain(spec, facts)
        except InvalidSpecError:
            # The domain may have been made again since it was asked.
            with contextlib.suppress(UnreachableError):
                facts = await self._identities.facts(spec.domain, source, again=True)
            _check_same_domain(spec, facts)
        return facts


def not_yours(lease_id: str) -> NotPermittedError:
    """Return the refusal of a lease to a user who does not have it."""
    return NotPermittedError.of("lease-not-yours", "another user has this lease", where=lease_id)


def cut_off_error(lease_id: str) -> NotPermittedError:
    """Return the refusal of tickets to a container that root cut off."""
    return NotPermittedError.of(
        "lease-revoked",
        "root has cut this container off from its account",
        where=lease_id,
        remedy="look why that was done; another container in its place gets tickets again",
    )


def _check_same_domain(spec: CredentialSpec, facts: DomainFacts) -> None:
    """Refuse a spec that names another domain than the one that answered to the name."""
    errors, _ = differences(spec.domain_join_config, facts)
    if errors:
        raise InvalidSpecError(*errors)
