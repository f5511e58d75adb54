"""Whether the policy allows a lease, by what its record says: asked as long as the lease lasts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from credspec.agent.leases.record import LeaseRecord, full_names
from credspec.config.policy import GRPC_SOURCE, Policy
from credspec.errors import CredspecError, NotPermittedError, Problem
from credspec.providers.provider import HostSource
from credspec.providers.selection import Providers

_MOST_REMEMBERED: Final = 4096


class Terms(NamedTuple):
    """What the policy looks at of a lease; fields as in `LeaseRecord`."""

    user: int | None
    spec_source: str
    accounts: tuple[str, ...]
    domain: str
    tickets: str
    services: tuple[str, ...]
    keytab: bool

    @classmethod
    def of(cls, record: LeaseRecord) -> Terms:
        """Return those of a lease."""
        return cls(
            *(record.user, record.spec_source, record.accounts, record.domain),
            *(record.tickets, record.services, record.keytab),
        )


def check_lease(policy: Policy, record: LeaseRecord) -> None:
    """Refuse a lease that the policy does not allow, or does not allow any more.

    Looked at are its user, where its spec came from, its accounts under the names that their
    domains have, its keytabs, and which tickets of which services it has. Nobody is asked.

    Raises:
        NotPermittedError: `policy-user`, `policy-spec-source`, `policy-account`, `policy-keytab`,
            `policy-tickets`, `policy-tgt`, `policy-service`; every problem there is.
    """
    _check(policy, Terms.of(record))


def _check(policy: Policy, terms: Terms) -> None:
    checks: list[Callable[[], None]] = []
    is_grpc = terms.spec_source == GRPC_SOURCE
    if (user := terms.user) is not None:
        checks.append(lambda: policy.check_user(user, grpc=is_grpc))
    if not is_grpc:
        checks.append(lambda: policy.check_spec_source(terms.spec_source))
    checks.append(lambda: policy.check_accounts(terms.accounts, terms.domain))
    checks.append(lambda: policy.check_tickets(terms.tickets, terms.accounts, terms.domain))
    if names := full_names(terms.services):
        checks.append(lambda: policy.check_services(names, terms.accounts, terms.domain))
    if terms.keytab:
        checks.append(lambda: policy.check_keytabs(terms.accounts, terms.domain))
    problems: list[Problem] = []
    for check in checks:
        try:
            check()
        except NotPermittedError as error:
            problems += error.problems
    if problems:
        raise NotPermittedError(*problems)


def source_refusal(providers: Providers, source: HostSource | None) -> CredspecError | None:
    """Return why a lease may not log on with its source any more, None if it may."""
    try:
        providers.check_held(source)
    except CredspecError as error:
        return error
    return None


class Refusals:
    """Why a policy does not allow leases; of terms that it allows it is asked once."""

    def __init__(self) -> None:
        self._policy: Policy | None = None
        self._allowed: set[Terms] = set()

    def of(self, policy: Policy, record: LeaseRecord) -> NotPermittedError | None:
        """Return why the policy does not allow a lease, None if it does."""
        if policy is not self._policy or len(self._allowed) >= _MOST_REMEMBERED:
            self._policy, self._allowed = policy, set()
        terms = Terms.of(record)
        if terms in self._allowed:
            return None
        try:
            _check(policy, terms)
        except NotPermittedError as error:
            return error
        self._allowed.add(terms)
        return None
