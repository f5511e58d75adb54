"""Group Managed Service Accounts in the directory, and their managed passwords (MS-ADTS 2.2.19)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from credspec.directory.connection import Connection, Entry, escape
from credspec.directory.domain import DomainFacts
from credspec.directory.managed_password import ManagedPassword
from credspec.directory.security_descriptor import allowed_readers
from credspec.errors import CredspecError, NotFoundError, NotPermittedError, UsageError

_ACCOUNT_DISABLED: Final = 0x2  # userAccountControl, MS-ADTS 2.2.16
_PASSWORD: Final = "msDS-ManagedPassword"  # noqa: S105 - the attribute's name
_ATTRIBUTES: Final = (
    "sAMAccountName",
    "userAccountControl",
    "servicePrincipalName",
    "msDS-GroupMSAMembership",
)
# MS-ADTS 3.1.1.6.2 for the characters; bounded, since it goes into a filter and a principal.
_ACCOUNT_NAME: Final = re.compile(r"[^\x00-\x1f\x7f\"/\\\[\]:;|=,+*?<>@\s]{1,63}")


@dataclass(frozen=True, slots=True)
class GroupManagedServiceAccount:
    """A gMSA as the directory holds it; `account_name` is the sAMAccountName with its ``$``."""

    distinguished_name: str
    account_name: str
    enabled: bool
    service_principal_names: tuple[str, ...]
    readers: tuple[str, ...]


def valid_account_name(name: str) -> str:
    """Return a sAMAccountName without its trailing ``$``.

    Raises:
        UsageError: `account-name-invalid`, before the name gets into a filter or a principal.
    """
    bare = name.removesuffix("$")
    if not _ACCOUNT_NAME.fullmatch(bare) or bare in {".", ".."}:
        raise UsageError.of(
            "account-name-invalid",
            f"{name[:80]!r} is not an account name",
            where="account",
            expected="a sAMAccountName such as WebApp01",
        )
    return bare


def find_account(
    connection: Connection, facts: DomainFacts, name: str
) -> GroupManagedServiceAccount:
    """Find a gMSA anywhere in its domain.

    `name` is the sAMAccountName with or without ``$``.

    Raises:
        UsageError: `account-name-invalid`.
        NotFoundError: `account-not-found`.
    """
    return _account(_find(connection, facts, name, _ATTRIBUTES))


def read_managed_password(
    connection: Connection, facts: DomainFacts, name: str
) -> tuple[GroupManagedServiceAccount, ManagedPassword]:
    """Find a gMSA and read its managed password, in one search.

    Raises:
        UsageError: `account-name-invalid`.
        NotFoundError: `account-not-found`.
        NotPermittedError: `password-not-permitted`; the text says who may read it and how to
            allow this host.
        CredspecError: `managed-password-malformed`.
    """
    entry = _find(connection, facts, name, (*_ATTRIBUTES, _PASSWORD))
    account = _account(entry)
    blob = entry.get(_PASSWORD.lower())
    if not blob:
        raise _not_permitted(connection, facts, account)
    return account, ManagedPassword.unpack(blob[0])


def read_key_version(connection: Connection, account: GroupManagedServiceAccount) -> int:
    """Return the kvno of the password in force.

    To be asked after the password: reading that one may itself have made the domain roll it over.
    """
    found = connection.search(
        account.distinguished_name, "(objectClass=*)", ("msDS-KeyVersionNumber",), subtree=False
    )
    values = found[0].get("msds-keyversionnumber") if found else None
    if not values:
        raise CredspecError.of(
            "key-version-missing",
            "the domain controller did not return msDS-KeyVersionNumber",
            where=account.account_name,
        )
    return int(values[0])


def _find(
    connection: Connection, facts: DomainFacts, name: str, attributes: tuple[str, ...]
) -> Entry:
    bare = valid_account_name(name)
    found = connection.search(
        facts.naming_context,
        f"(&(objectClass=msDS-GroupManagedServiceAccount)(sAMAccountName={escape(bare)}$))",
        attributes,
    )
    if not found:
        raise NotFoundError.of(
            "account-not-found",
            f'there is no group managed service account "{bare}" in {facts.dns_name}',
            where=f"account {bare}",
            remedy="check its name; it must be the sAMAccountName "
            "(Windows: error 1787, no trust account)",
        )
    return found[0]


def _account(entry: Entry) -> GroupManagedServiceAccount:
    descriptor = entry.get("msds-groupmsamembership")
    control = int((entry.get("useraccountcontrol") or [b"0"])[0])
    return GroupManagedServiceAccount(
        distinguished_name=entry["dn"][0].decode(),
        account_name=entry["samaccountname"][0].decode(),
        enabled=not control & _ACCOUNT_DISABLED,
        service_principal_names=tuple(
            value.decode("utf-8", "replace") for value in entry.get("serviceprincipalname", ())
        ),
        readers=allowed_readers(descriptor[0]) if descriptor else (),
    )


def _not_permitted(
    connection: Connection, facts: DomainFacts, account: GroupManagedServiceAccount
) -> NotPermittedError:
    names = [_name_of_sid(connection, facts, sid) for sid in account.readers]
    who = ", ".join(names) if names else "nobody that this host can see"
    bare = account.account_name.removesuffix("$")
    return NotPermittedError.of(
        "password-not-permitted",
        f"this host may not read the managed password of {account.account_name}; allowed: {who}",
        where=f"account {bare}",
        remedy=f"allow the host's account or a group it is in: Set-ADServiceAccount {bare} "
        "-PrincipalsAllowedToRetrieveManagedPassword ..., or samba-tool service-account "
        f"group-msa-membership add --name={bare} --principal=HOST$; after a change of groups the "
        "host needs a new ticket",
    )


def _name_of_sid(connection: Connection, facts: DomainFacts, sid: str) -> str:
    try:
        found = connection.search(facts.naming_context, f"(objectSid={sid})", ("sAMAccountName",))
    except CredspecError:
        return sid
    values = found[0].get("samaccountname") if found else None
    return f"{facts.netbios_name}\\{values[0].decode('utf-8', 'replace')}" if values else sid
