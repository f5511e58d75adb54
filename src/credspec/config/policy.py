"""Who may have what: the `[policy]` table of the configuration, decided in one place."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, ClassVar, Final

from credspec.config.host_users import USERS
from credspec.config_table import Key, Table, number, texts
from credspec.errors import NotPermittedError, Problem

KUBERNETES_SOURCE: Final = "kubernetes"
"""Where a spec comes from that the CSI driver read from a cluster's GMSACredentialSpec."""

SPEC_SOURCES: Final = ("file", "raw", KUBERNETES_SOURCE)
"""Where a spec may come from: the host's spec directory, the caller who starts the container, or
an object of the cluster that the pod's service account may use."""

GRPC_SOURCE: Final = "grpc"
"""Where a spec comes from that a call of credentials-fetcher's interface brought."""


_PATTERN: Final = re.compile(r"[^@/\s]{1,64}(?:@[^@/\s]{1,255})?")
_MOST_LEASES: Final = 100_000

_PATTERNS: Final = texts(
    lambda text: text if _PATTERN.fullmatch(text) else None,
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
    `leases_per_user` is how many leases each of them may have at a time.
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
            for name in _with_domain(accounts, domain)
            if not _covers(self.accounts, name)
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
            for name in _with_domain(accounts, domain)
            if not _covers(self.keytabs, name)
        ]
        if problems:
            raise NotPermittedError(*problems)

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


def _with_domain(accounts: Sequence[str], domain: str) -> list[str]:
    return [name if "@" in name else f"{name}@{domain}" for name in accounts]


def _covers(patterns: tuple[str, ...], name: str) -> bool:
    return any(
        fnmatchcase(name.lower(), (pattern if "@" in pattern else f"{pattern}@*").lower())
        for pattern in patterns
    )


def caller_refused(uid: int) -> NotPermittedError:
    """Return the error for a user who may not use the agent: `caller-not-permitted`."""
    return NotPermittedError.of(
        "caller-not-permitted",
        f"user {uid} may not use the agent",
        where="agent socket",
        remedy="ask root, or add the user to users under [policy] in the configuration",
    )
