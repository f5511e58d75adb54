"""What a lease holds: the accounts of its spec, as identities, and the files made of them.

An account is written ``NAME``, one of another domain than the spec's own ``NAME@domain``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

from credspec.agent.identities.identity import Identity, IdentityName
from credspec.agent.leases.record import LeaseRecord
from credspec.contract.lease_environment import REPLAY_CACHES
from credspec.contract.names import MOUNT_POINT
from credspec.directory.account_identity import valid_account_name
from credspec.kerberos.keytab import joined_keytabs
from credspec.kerberos.krb5_conf import DefaultPaths, container_krb5_conf
from credspec.providers.provider import HostSource
from credspec.spec.document import CredentialSpec


def accounts_of(spec: CredentialSpec) -> tuple[str, ...]:
    """Return a spec's accounts, the default one first; scopes are in lower case, else as given.

    The spec must be one that was read: `credspec.spec.validation` checks names and scopes.

    Raises:
        UsageError: `account-name-invalid`.
    """
    names = [
        *map(valid_account_name, spec.own_accounts),
        *(
            f"{valid_account_name(entry.name)}@{entry.scope.lower().removesuffix('.')}"
            for entry in spec.other_accounts
        ),
    ]
    return tuple(dict.fromkeys(names))


def scopes_in(accounts: Sequence[str]) -> set[str]:
    """Return the NetBIOS names of other domains in accounts, whose DNS names must be found."""
    scopes = {account.partition("@")[2] for account in accounts}
    return {scope for scope in scopes if scope and "." not in scope}


def with_dns_names(accounts: Sequence[str], domains: dict[str, str], own: str) -> tuple[str, ...]:
    """Return accounts with DNS names in place of NetBIOS names, each once.

    `domains` are the DNS names by NetBIOS name in lower case, `own` is that of the spec's domain.
    """
    found: dict[str, str] = {}
    for account in accounts:
        name, _, scope = account.partition("@")
        domain = domains.get(scope, scope)
        full = name if domain in {"", own} else f"{name}@{domain}"
        found.setdefault(full.lower(), full)
    return tuple(found.values())


def identity_names(record: LeaseRecord, source: HostSource | None) -> tuple[IdentityName, ...]:
    """Return the identities of a lease, each once; `source` is what the host logs on with."""
    if source is None:
        return _of_machine(record.accounts, record.domain)
    return _names(record.accounts, record.domain, source)


def _names(
    accounts: Sequence[str], own: str, source: HostSource | None
) -> tuple[IdentityName, ...]:
    parts = [account.lower().partition("@") for account in accounts]
    own = own.lower()
    return tuple(
        dict.fromkeys(IdentityName(name, domain or own, source) for name, _, domain in parts)
    )


@lru_cache(maxsize=1024)
def _of_machine(accounts: tuple[str, ...], own: str) -> tuple[IdentityName, ...]:
    # Not those of a source, which may hold a password.
    return _names(accounts, own, None)


def file_names(record: LeaseRecord) -> set[str]:
    """Return the names of the files that a lease's directory has."""
    names = {"krb5cc", "krb5.conf"} | ({"krb5.keytab"} if record.keytab else set())
    identities = identity_names(record, None)
    if len(identities) > 1:
        names |= {cache_name(record, name) for name in identities}
    return names


def files_of(
    record: LeaseRecord,
    held: Sequence[Identity],
    now: datetime | None = None,
    directory: str | None = MOUNT_POINT,
) -> dict[str, bytes]:
    """Return the files of a lease, made of its identities.

    `directory` is the lease's as its programs see it, for paths in krb5.conf; None if unknown.

    What comes of an identity that was adopted, and whose turn has not come, is left out: the
    container has what it had. So are tickets that are not to be given at `now`.
    """
    files: dict[str, bytes] = {}
    kdcs: dict[str, tuple[str, ...]] = {}
    own = record.domain.lower()
    # The default account's realm stands first.
    for identity in sorted(held, key=lambda identity: identity.name.domain != own):
        name = identity.name
        if identity.kdc_addresses or identity.ticket is not None:
            kdcs.setdefault(name.domain.upper(), identity.kdc_addresses)
        if identity.ticket is None or not (now is None or identity.is_fit(now)):
            continue
        files[cache_name(record, name)] = identity.ticket.ccache
        if name.domain == own and name.account == record.default_account.lower():
            files["krb5cc"] = identity.ticket.ccache
    if len(kdcs) == len({identity.name.domain for identity in held}):
        paths = None if directory is None else default_paths(record, directory)
        text = container_krb5_conf(
            own.upper(), kdcs, paths=paths, name_fallback=record.name_fallback
        )
        files["krb5.conf"] = text.encode()
    keytabs = [identity.keytab for identity in held if identity.keytab is not None]
    if len(keytabs) == len(held):
        files["krb5.keytab"] = joined_keytabs(keytabs)
    wanted = file_names(record)
    return {name: content for name, content in files.items() if name in wanted}


def default_paths(record: LeaseRecord, directory: str) -> DefaultPaths:
    """Return where a lease's programs find its files in `directory`."""
    has_replay_caches = record.keytab and record.replay_cache
    return DefaultPaths(
        ccache=f"{directory}/krb5cc",
        keytab=f"{directory}/krb5.keytab" if record.keytab else None,
        replay_caches=f"{directory}/{REPLAY_CACHES}" if has_replay_caches else None,
    )


def cache_name(record: LeaseRecord, name: IdentityName) -> str:
    """Return the name of the file that has the tickets of one of several identities."""
    of_other = "" if name.domain == record.domain.lower() else f"@{name.domain}"
    return f"krb5cc_{name.account}{of_other}"
