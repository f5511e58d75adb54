"""Group Managed Service Accounts in the directory, and their managed passwords (MS-ADTS 2.2.19)."""

from __future__ import annotations

from typing import Final, NamedTuple

from credspec.directory.account_identity import (
    AccountIdentity,
    IdentityForm,
    parse_account_identity,
    valid_account_name,
)
from credspec.directory.connection import Connection, Entry, escape
from credspec.directory.domain import DomainFacts
from credspec.directory.managed_password import ManagedPassword
from credspec.directory.password_readers import how_to_allow, name_of_sid, read_own_name
from credspec.directory.security_descriptor import allowed_readers
from credspec.directory.security_identifier import sid_to_text
from credspec.errors import (
    NotFoundError,
    NotPermittedError,
    PermanentFaultError,
    UsageError,
)

_ACCOUNT_DISABLED: Final = 0x2  # userAccountControl, MS-ADTS 2.2.16
_WORKSTATION_TRUST: Final = 0x1000
_PASSWORD: Final = "msDS-ManagedPassword"  # noqa: S105 - the attribute's name
_CLASS: Final = "msDS-GroupManagedServiceAccount"
# From the special to the general: a computer is a user too.
_OTHER_CLASSES: Final = {
    "msds-managedserviceaccount": "a standalone managed service account",
    "msds-delegatedmanagedserviceaccount": "a delegated managed service account",
    "computer": "a computer",
    "user": "a user",
    "group": "a group",
}
_ATTRIBUTES: Final = (
    "sAMAccountName",
    "objectSid",
    "userAccountControl",
    "servicePrincipalName",
    "msDS-GroupMSAMembership",
)


class PasswordNotPermittedError(NotPermittedError):
    """Who is logged on may not read a managed password: `password-not-permitted`."""


class GroupManagedServiceAccount(NamedTuple):
    """A gMSA as the directory holds it; `account_name` is the sAMAccountName with its ``$``."""

    distinguished_name: str
    account_name: str
    sid: str
    enabled: bool
    is_workstation_trust: bool
    service_principal_names: tuple[str, ...]
    readers: tuple[str, ...]


def find_account(
    connection: Connection, facts: DomainFacts, name: str
) -> GroupManagedServiceAccount:
    """Find a gMSA anywhere in its domain.

    `name` may have any form that `credspec.directory.account_identity` knows.

    Raises:
        UsageError: `account-name-invalid`.
        NotFoundError: `account-not-found`, `account-wrong-class`, `account-other-domain`.
    """
    identity = parse_account_identity(name)
    _require_domain(identity, facts)
    return _account(_find(connection, facts, identity, _ATTRIBUTES))


def read_managed_password(
    connection: Connection, facts: DomainFacts, name: str, *, reader: str = ""
) -> tuple[GroupManagedServiceAccount, ManagedPassword]:
    """Find a gMSA by its sAMAccountName and read its managed password, in one search.

    A caller that is done with passwords calls `Connection.overwrite_last_answer`. `reader` is the
    principal that is logged on, if it is not the host itself.

    Raises:
        UsageError: `account-name-invalid`.
        NotFoundError: `account-not-found`, `account-wrong-class`.
        NotPermittedError: `password-not-permitted`; the text says who may read it and how to
            allow the reader.
        CredspecError: `managed-password-malformed`, `account-malformed`.
    """
    identity = AccountIdentity(IdentityForm.ACCOUNT_NAME, valid_account_name(name))
    entry = _find(connection, facts, identity, (*_ATTRIBUTES, _PASSWORD))
    account = _account(entry)
    if account.account_name.lower() != f"{identity.value}$".lower():
        raise PermanentFaultError.of(
            "account-malformed",
            f"the domain controller returned {account.account_name}",
            where=f"account {identity.value}",
            expected=f"{identity.value}$",
        )
    blob = entry.get(_PASSWORD.lower())
    if not blob:
        raise not_permitted(connection, facts, account, reader)
    return account, ManagedPassword.unpack(blob[0])


def read_key_version(connection: Connection, account: GroupManagedServiceAccount) -> int:
    """Return the kvno of the password in force.

    To be asked after the password: reading that one may itself have made the domain roll it over.
    """
    found = connection.search(
        account.distinguished_name, "(objectClass=*)", ("msDS-KeyVersionNumber",), subtree=False
    )
    values = found[0].get("msds-keyversionnumber") if found else None
    if not values or not values[0].isdigit():
        raise PermanentFaultError.of(
            "key-version-missing",
            "the domain controller did not return msDS-KeyVersionNumber",
            where=account.account_name,
        )
    return int(values[0])


def _find(
    connection: Connection,
    facts: DomainFacts,
    identity: AccountIdentity,
    attributes: tuple[str, ...],
) -> Entry:
    found = connection.search(
        facts.naming_context,
        f"(&(objectClass={_CLASS}){identity.filter_in(facts.dns_name)})",
        attributes,
    )
    if not found:
        raise _not_found(connection, facts, identity)
    return found[0]


def _not_found(
    connection: Connection, facts: DomainFacts, identity: AccountIdentity
) -> NotFoundError:
    """Tell what the name is instead of a gMSA, if it is anything."""
    where = f"account {identity.value}"
    wanted = identity.filter_in(facts.dns_name)
    if identity.form not in {IdentityForm.DISTINGUISHED_NAME, IdentityForm.GUID, IdentityForm.SID}:
        wanted = f"(|{wanted}(sAMAccountName={escape(identity.value)}))"
    others = connection.search(facts.naming_context, wanted, ("objectClass",))
    classes = {value.decode("utf-8", "replace").lower() for value in _classes(others)}
    for name, text in _OTHER_CLASSES.items():
        if name in classes:
            return NotFoundError.of(
                "account-wrong-class",
                f'"{identity.value}" is {text} in {facts.dns_name}',
                where=where,
                expected="a group managed service account (msDS-GroupManagedServiceAccount)",
                remedy="name the gMSA, or make one with New-ADServiceAccount",
            )
    return NotFoundError.of(
        "account-not-found",
        f'there is no group managed service account "{identity.value}" in {facts.dns_name}',
        where=where,
        remedy="check its name and its domain (Windows: error 1787, no trust account); an account "
        "of another domain needs that domain's name",
    )


def _classes(entries: list[Entry]) -> list[bytes]:
    return [value for entry in entries for value in entry.get("objectclass", ())]


def _require_domain(identity: AccountIdentity, facts: DomainFacts) -> None:
    if identity.domain is None:
        return
    if identity.domain.lower() in {facts.dns_name.lower(), facts.netbios_name.lower()}:
        return
    # An explicit user principal name may have any suffix: the filter decides.
    if identity.form is IdentityForm.USER_PRINCIPAL_NAME:
        return
    raise NotFoundError.of(
        "account-other-domain",
        f'"{identity.value[:200]}" names the domain {identity.domain}',
        where="account",
        expected=f"an account of {facts.dns_name} ({facts.netbios_name})",
        remedy="give the DNS name of its domain with --domain (New-CredentialSpec: -Domain), or "
        f"for an additional account {identity.value[:200]}@DOMAIN",
    )


def _account(entry: Entry) -> GroupManagedServiceAccount:
    descriptor = entry.get("msds-groupmsamembership")
    try:
        control = int((entry.get("useraccountcontrol") or [b"0"])[0])
        # It becomes part of paths and principals.
        account_name = f"{valid_account_name(entry['samaccountname'][0].decode())}$"
        distinguished_name = entry["dn"][0].decode()
        sid = entry["objectsid"][0]
    except (KeyError, IndexError, ValueError, UsageError):
        raise PermanentFaultError.of(
            "account-malformed",
            "the domain controller returned an account without a name, a SID or flags that are so",
            where="account",
        ) from None
    return GroupManagedServiceAccount(
        distinguished_name=distinguished_name,
        account_name=account_name,
        sid=sid_to_text(sid),
        enabled=not control & _ACCOUNT_DISABLED,
        is_workstation_trust=bool(control & _WORKSTATION_TRUST),
        service_principal_names=tuple(
            value.decode("utf-8", "replace") for value in entry.get("serviceprincipalname", ())
        ),
        readers=allowed_readers(descriptor[0]) if descriptor else (),
    )


def not_permitted(
    connection: Connection, facts: DomainFacts, account: GroupManagedServiceAccount, reader: str
) -> NotPermittedError:
    """Return the error that says who may read the password, and how to allow the reader.

    `reader` is the principal that is logged on, empty if it is the host itself.
    """
    names = [name_of_sid(connection, facts, sid) for sid in account.readers]
    shown = reader or "this host"
    who = ", ".join(names) if names else f"no account that {shown} can see"
    bare = account.account_name.removesuffix("$")
    host = reader.rpartition("@")[0] if reader else read_own_name(connection, facts)
    commands = how_to_allow(bare, names, host)
    return PasswordNotPermittedError.of(
        "password-not-permitted",
        f"{shown} may not read the managed password of {account.account_name}; allowed: {who}",
        where=f"account {bare}",
        remedy=f"allow {reader or 'the account of the host'} or a group it is in: {commands}; "
        f"after a change of groups {'it' if reader else 'the host'} needs a new ticket",
    )


def reader_of(principal: str) -> str:
    """Return a principal that is of no computer, empty for one that may be this host."""
    return "" if principal.partition("@")[0].endswith("$") else principal


def name_is_taken(connection: Connection, facts: DomainFacts, name: str) -> bool:
    """Return whether another account has the gMSA's name without its ``$``."""
    wanted = f"(sAMAccountName={escape(valid_account_name(name))})"
    return bool(connection.search(facts.naming_context, wanted, ("sAMAccountName",)))


def accounts_with_service_principal_name(
    connection: Connection, facts: DomainFacts, name: str
) -> tuple[str, ...]:
    """Return the sAMAccountNames of all accounts of the domain that hold an SPN."""
    wanted = f"(servicePrincipalName={escape(name)})"
    return tuple(
        entry["samaccountname"][0].decode("utf-8", "replace")
        for entry in connection.search(facts.naming_context, wanted, ("sAMAccountName",))
        if entry.get("samaccountname")
    )
