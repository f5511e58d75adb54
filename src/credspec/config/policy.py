"""Who may have what: the `[policy]` table of the configuration, decided in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, ClassVar, Final

from credspec.config import ticket_policy
from credspec.config.account_patterns import ACCOUNT_PATTERN, covers, with_domain
from credspec.config.host_users import USERS
from credspec.config_table import Key, Table, number, texts
from credspec.contract.service_names import TICKETS
from credspec.errors import NotPermittedError, Problem
from credspec.kerberos.service_names import ServiceName, ServicePattern

KUBERNETES_SOURCE: Final = "kubernetes"
"""Where a spec comes from that the CSI driver read from a cluster's GMSACredentialSpec."""

SPEC_SOURCES: Final = ("file", "raw", KUBERNETES_SOURCE)
"""Where a spec may come from: the host's spec directory, the caller who starts the container, or
an object of the cluster that the pod's service account may use."""

GRPC_SOURCE: Final = "grpc"
"""Where a spec comes from that a call of credentials-fetcher's interface brought."""


_MOST_LEASES: Final = 100_000

_PATTERNS: Final = texts(
    lambda text: text if ACCOUNT_PATTERN.fullmatch(text) else None,
    "a pattern of ACCOUNT@DOMAIN, such as WebApp*@contoso.com",
)
_SOURCES: Final = texts(
    lambda text: text if text in SPEC_SOURCES else None,
    " or ".join(f'"{source}"' for source in SPEC_SOURCES),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What this host gives to its containers, beyond what the directory allows the host.

    `accounts` are patterns of ``ACCOUNT@DOMAIN`` with ``*`` and ``?``; without ``@`` they hold for
    every domain. `keytabs` are such patterns too: accounts whose long-term keys containers may have
    as well as tickets, to accept logons. `spec_sources` are some of `SPEC_SOURCES`. `uids` are the
    users other than root who may use the agent, and `grpc_uids` those who may call credentials-
    fetcher's interface, with any document that they bring (``[credentials_fetcher] users``).
    `leases_per_user` is how many leases each of them may have at a time. `tickets` are the kinds of
    tickets that containers may hold, `services` what accounts may have tickets of, and
    `ticket_life` for how long those live.
    """

    table: ClassVar = Table("policy", "Who may have which account ([policy](policy.md)).")

    accounts: Annotated[
        tuple[str, ...],
        Key(
            kind=_PATTERNS,
            meaning="Accounts that containers may have, as patterns with `*` and `?`; without `@` "
            "a pattern holds for every domain.",
            reloaded=True,
        ),
    ] = ("*",)
    keytabs: Annotated[
        tuple[str, ...],
        Key(
            kind=_PATTERNS,
            meaning="Accounts whose keys containers may have, to accept logons ([accepting "
            "logons](applications/accepting-logons.md)); none by default.",
            reloaded=True,
        ),
    ] = ()
    leases_per_user: Annotated[
        int,
        Key(
            kind=number(1, _MOST_LEASES, make=int),
            meaning="How many leases each of these users may have at a time.",
            reloaded=True,
        ),
    ] = 256
    spec_sources: Annotated[
        tuple[str, ...],
        Key(
            kind=_SOURCES,
            meaning="Where specs may come from: `file` is the spec directory, `raw` is the one who "
            "starts the container, `kubernetes` is the cluster's GMSACredentialSpec objects.",
            reloaded=True,
        ),
    ] = ("file",)
    tickets: Annotated[
        tuple[str, ...],
        Key(
            kind=ticket_policy.MODES,
            meaning="What containers may hold ([tickets of services](tickets-of-services.md)): "
            "`tgt` is a ticket-granting ticket, `services` tickets of named services only, "
            "`broker` a decoy that only the agent understands.",
            reloaded=True,
        ),
    ] = TICKETS
    services: Annotated[
        ticket_policy.Services,
        Key(
            kind=ticket_policy.SERVICES,
            meaning="What accounts may have tickets of. An account that a key covers never gets a "
            "ticket-granting ticket on this host; one that no key covers may have any service's.",
            default="no account is limited",
            reloaded=True,
        ),
    ] = field(default_factory=lambda: ticket_policy.NO_SERVICES, hash=False)
    ticket_life: Annotated[
        ticket_policy.Lives,
        Key(
            kind=ticket_policy.LIVES,
            meaning="For how long tickets of a class of services live, by class; `*` is for all "
            "that are not listed.",
            default="`cifs` and `ldap` 1h, since their sessions may end with it; others 10m",
            reloaded=True,
        ),
    ] = field(default_factory=lambda: ticket_policy.DEFAULT_LIVES, hash=False)
    uids: Annotated[
        frozenset[int],
        Key(
            kind=USERS,
            name="users",
            meaning="Users other than root who may use the agent, for rootless engines and "
            "`credspec run`.",
            reloaded=True,
        ),
    ] = frozenset()
    grpc_uids: frozenset[int] = frozenset()

    def check_spec_source(self, source: str) -> None:
        """Refuse a spec that comes from where it may not, one of `SPEC_SOURCES`.

        Raises:
            NotPermittedError: `policy-spec-source`.
        """
        if source not in self.spec_sources:
            raise NotPermittedError.of(
                "policy-spec-source",
                f"{_source_name(source)} are not allowed on this host",
                where="policy",
                expected=" or ".join(map(_source_name, self.spec_sources)) or "no spec at all",
                remedy=f'put the spec into the spec directory, or add "{source}" to '
                "spec_sources under [policy] in the configuration",
            )

    def check_user(self, uid: int, *, grpc: bool = False) -> None:
        """Refuse an unprivileged user who may not use the agent, or with `grpc` its calls.

        Raises:
            NotPermittedError: `policy-user`.
        """
        if uid not in (self.grpc_uids if grpc else self.uids):
            table = "credentials_fetcher" if grpc else "policy"
            raise NotPermittedError.of(
                "policy-user",
                f"user {uid} may not use the agent",
                where="policy",
                remedy=f"add the user to users under [{table}] in the configuration",
            )

    def check_accounts(self, accounts: Sequence[str], domain: str) -> None:
        """Refuse accounts that no pattern covers, all of them at once.

        They are ``NAME``, then of `domain`, or ``NAME@domain``.

        Raises:
            NotPermittedError: `policy-account`, one problem for each account.
        """
        problems = [
            Problem(
                code="policy-account",
                found=f"{name} is not among the accounts of this host",
                where="policy",
                expected=" or ".join(self.accounts[:5]) or "no account at all",
                remedy="add it to accounts under [policy] in the configuration",
            )
            for name in with_domain(accounts, domain)
            if not covers(self.accounts, name)
        ]
        if problems:
            raise NotPermittedError(*problems)

    def check_keytabs(self, accounts: Sequence[str], domain: str) -> None:
        """Refuse accounts, as in `check_accounts`, whose keytab no container may have.

        Raises:
            NotPermittedError: `policy-keytab`, one problem for each account.
        """
        problems = [
            Problem(
                code="policy-keytab",
                found=f"a keytab of {name} is not for the containers of this host",
                where="policy",
                expected=" or ".join(self.keytabs[:5]) or "no keytab at all",
                remedy=f'add "{name}" to keytabs under [policy] in the configuration',
            )
            for name in with_domain(accounts, domain)
            if not covers(self.keytabs, name)
        ]
        if problems:
            raise NotPermittedError(*problems)

    def check_tickets(self, kind: str, accounts: Sequence[str], domain: str) -> None:
        """Refuse a kind of tickets that containers of these accounts may not hold.

        Raises:
            NotPermittedError: `policy-tickets`; `policy-tgt`, one problem for each account.
        """
        ticket_policy.refuse(
            ticket_policy.tickets_problems(self.tickets, self.services, kind, accounts, domain)
        )

    def check_services(
        self, names: Iterable[ServiceName], accounts: Sequence[str], domain: str
    ) -> None:
        """Refuse services that accounts, as in `check_accounts`, may not have tickets of.

        Raises:
            NotPermittedError: `policy-service`, one problem for each account and service.
        """
        ticket_policy.refuse(
            ticket_policy.services_problems(self.services, names, accounts, domain)
        )

    def services_of(self, account: str) -> tuple[ServicePattern, ...] | None:
        """Return what ``NAME@domain`` may have tickets of, None if nothing limits it."""
        return ticket_policy.services_of(self.services, account)

    def life_of(self, service_class: str) -> timedelta:
        """Return for how long a ticket of a class of services is to live."""
        return ticket_policy.life_of(self.ticket_life, service_class)

    def allows_user(self, uid: int, own_uid: int) -> bool:
        """Return whether a user may use the agent, which runs as `own_uid`."""
        return uid in {0, own_uid} or uid in self.uids

    def allows_grpc_user(self, uid: int) -> bool:
        """Return whether a user may call credentials-fetcher's interface."""
        return uid == 0 or uid in self.grpc_uids


class PolicyInForce:
    """The policy that counts now; another one can be put in force while the agent runs.

    What is `watched` is called with each new policy.
    """

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy or Policy()
        self.watched: list[Callable[[Policy], None]] = []

    def replace(self, policy: Policy) -> None:
        """Put another policy in force."""
        self.policy = policy
        for call in self.watched:
            call(policy)

    def allows_user(self, uid: int, own_uid: int) -> bool:
        """Return whether a user may use the agent now, which runs as `own_uid`."""
        return self.policy.allows_user(uid, own_uid)


def _source_name(source: str) -> str:
    if source == KUBERNETES_SOURCE:
        return "GMSACredentialSpec objects of a Kubernetes cluster"
    return f"{source}:// specs"


def caller_refused(uid: int) -> NotPermittedError:
    """Return the error for a user who may not use the agent: `caller-not-permitted`."""
    return NotPermittedError.of(
        "caller-not-permitted",
        f"user {uid} may not use the agent",
        where="agent socket",
        remedy="ask root, or add the user to users under [policy] in the configuration",
    )
