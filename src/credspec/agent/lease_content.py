"""What a lease holds: the accounts of its spec, as identities, and the files made of them.

An account is written ``NAME``, one of another domain than the spec's own ``NAME@domain``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from credspec.agent.identities import Identity, IdentityName
from credspec.agent.journal import LeaseRecord
from credspec.directory.account_identity import valid_account_name
from credspec.directory.locator import valid_domain
from credspec.errors import InvalidSpecError, Problem, UsageError
from credspec.kerberos.keytab import joined_keytabs
from credspec.kerberos.krb5_conf import container_krb5_conf
from credspec.providers.host_account import HostSource
from credspec.spec.document import CredentialSpec

_NETBIOS_NAME: Final = re.compile(r"[^\x00-\x1f\x7f\\/:*?\"<>|.@\s]{1,15}")  # MS-NBTE 2.2.1


def accounts_of(spec: CredentialSpec) -> tuple[str, ...]:
    """Return a spec's accounts, the default one first; scopes are in lower case, else as given.

    Raises:
        InvalidSpecError: `account-other-domain` if the default account is of another domain alone,
            `account-scope-invalid` for each scope that names no domain.
        UsageError: `account-name-invalid`.
    """
    config = spec.domain_join_config
    entries = spec.active_directory_config.group_managed_service_accounts
    problems = [
        Problem(
            code="account-scope-invalid",
            found=f"scope {entry.scope[:80]!r}",
            where=f"/ActiveDirectoryConfig/GroupManagedServiceAccounts/{index}/Scope",
            expected="the DNS or the NetBIOS name of the account's domain",
        )
        for index, entry in enumerate(entries)
        if not spec.is_own_scope(entry.scope) and not _is_domain(entry.scope)
    ]
    default = spec.default_account.casefold()
    scopes = {e.scope for e in entries if e.name.rstrip("$").casefold() == default}
    if scopes and not any(map(spec.is_own_scope, scopes)):
        problems.append(
            Problem(
                code="account-other-domain",
                found=f"{spec.default_account}, which containers have by default, is of the domain "
                f"{' and '.join(sorted(scopes))} alone",
                where="/ActiveDirectoryConfig/GroupManagedServiceAccounts",
                expected=f"an entry with the scope {config.dns_name}",
                remedy="make the spec with the account's own domain, or correct the scope",
            )
        )
    if problems:
        raise InvalidSpecError(*problems)
    names = [
        *map(valid_account_name, spec.own_accounts),
        *(
            f"{valid_account_name(entry.name)}@{entry.scope.lower().removesuffix('.')}"
            for entry in spec.other_accounts
        ),
    ]
    return tuple(dict.fromkeys(names))


def _is_domain(scope: str) -> bool:
    if "." not in scope:
        return _NETBIOS_NAME.fullmatch(scope) is not None
    try:
        valid_domain(scope)
    except UsageError:
        return False
    return True


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
    parts = [account.lower().partition("@") for account in record.accounts]
    own = record.domain.lower()
    return tuple(
        dict.fromkeys(IdentityName(name, domain or own, source) for name, _, domain in parts)
    )


def file_names(record: LeaseRecord) -> set[str]:
    """Return the names of the files that a lease's directory has."""
    names = {"krb5cc", "krb5.conf"} | ({"krb5.keytab"} if record.keytab else set())
    identities = identity_names(record, None)
    if len(identities) > 1:
        names |= {_cache_name(record, name) for name in identities}
    return names


def files_of(record: LeaseRecord, held: Sequence[Identity]) -> dict[str, bytes]:
    """Return the files of a lease, made of its identities.

    What comes of an identity that was adopted, and whose turn has not come, is left out: the
    container has what it had.
    """
    files: dict[str, bytes] = {}
    kdcs: dict[str, tuple[str, ...]] = {}
    own = record.domain.lower()
    # The default account's realm stands first.
    for identity in sorted(held, key=lambda identity: identity.name.domain != own):
        name = identity.name
        if identity.kdc_addresses or identity.ticket is not None:
            kdcs.setdefault(name.domain.upper(), identity.kdc_addresses)
        if identity.ticket is None:
            continue
        files[_cache_name(record, name)] = identity.ticket.ccache
        if name.domain == own and name.account == record.default_account.lower():
            files["krb5cc"] = identity.ticket.ccache
    if len(kdcs) == len({identity.name.domain for identity in held}):
        files["krb5.conf"] = container_krb5_conf(own.upper(), kdcs).encode()
    keytabs = [identity.keytab for identity in held if identity.keytab is not None]
    if len(keytabs) == len(held):
        files["krb5.keytab"] = joined_keytabs(keytabs)
    wanted = file_names(record)
    return {name: content for name, content in files.items() if name in wanted}


def _cache_name(record: LeaseRecord, name: IdentityName) -> str:
    of_other = "" if name.domain == record.domain.lower() else f"@{name.domain}"
    return f"krb5cc_{name.account}{of_other}"
