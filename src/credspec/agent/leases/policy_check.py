"""Whether the policy allows a lease, by what its record says: asked as long as the lease lasts."""

from __future__ import annotations

from collections.abc import Callable

from credspec.agent.leases.record import LeaseRecord
from credspec.config.policy import GRPC_SOURCE, Policy
from credspec.errors import CredspecError, NotPermittedError, Problem
from credspec.providers.provider import HostSource
from credspec.providers.selection import Providers


def check_lease(policy: Policy, record: LeaseRecord) -> None:
    """Refuse a lease that the policy does not allow, or does not allow any more.

    Looked at are its user, where its spec came from, its accounts under the names that their
    domains have, its keytabs, and which tickets of which services it has. Nobody is asked.

    Raises:
        NotPermittedError: `policy-user`, `policy-spec-source`, `policy-account`, `policy-keytab`,
            `policy-tickets`, `policy-tgt`, `policy-service`; every problem there is.
    """
    checks: list[Callable[[], None]] = []
    is_grpc = record.spec_source == GRPC_SOURCE
    if (user := record.user) is not None:
        checks.append(lambda: policy.check_user(user, grpc=is_grpc))
    if not is_grpc:
        checks.append(lambda: policy.check_spec_source(record.spec_source))
    checks.append(lambda: policy.check_accounts(record.accounts, record.domain))
    checks.append(lambda: policy.check_tickets(record.tickets, record.accounts, record.domain))
    if names := record.service_names:
        checks.append(lambda: policy.check_services(names, record.accounts, record.domain))
    if record.keytab:
        checks.append(lambda: policy.check_keytabs(record.accounts, record.domain))
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


def refusal(policy: Policy, record: LeaseRecord) -> NotPermittedError | None:
    """Return why the policy does not allow a lease, None if it does."""
    try:
        check_lease(policy, record)
    except NotPermittedError as error:
        return error
    return None
