"""Steps on one account: from its entry in the directory to its ticket."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from credspec.directory.account_groups import membership_path, read_own_token, read_token_sids
from credspec.directory.accounts import (
    accounts_with_service_principal_name,
    find_account,
    name_is_taken,
    not_permitted,
    read_key_version,
    read_managed_password,
    reader_of,
)
from credspec.directory.connection import Connection
from credspec.directory.domain import DomainFacts
from credspec.directory.encryption_types import encryption_type_problems, read_encryption_types
from credspec.directory.kds_root_keys import read_kds_root_keys
from credspec.directory.password_readers import name_of_sid
from credspec.doctor.delegation_step import delegation_finding
from credspec.doctor.step import Finding, Step
from credspec.errors import CredspecError, NotPermittedError, Problem
from credspec.kerberos.keys import Enctype, computer_salt, enctype_name
from credspec.kerberos.tickets import Ticket, ticket_from_managed_password

if TYPE_CHECKING:
    from credspec.doctor.examination import Examination

_EVERYONE: Final = {
    "S-1-1-0": "Everyone",
    "S-1-5-11": "Authenticated Users",
}


def account_steps(name: str, scope: str = "") -> tuple[Step, ...]:
    """Return the steps on the account with this sAMAccountName (without ``$``).

    `scope` is what the spec calls its domain, empty for the spec's own domain.
    """
    subject = f"{name}@{scope}" if scope else name
    domain = f"other-domain {scope}" if scope else "domain"

    def about(look: Callable[[Examination, str], Finding]) -> Callable[[Examination], Finding]:
        return lambda examination: look(examination, subject)

    def step(
        step_name: str,
        title: str,
        look: Callable[[Examination, str], Finding],
        *needs: str,
    ) -> Step:
        own = tuple(n if n == domain else f"{n} {subject}" for n in needs)
        return Step(name=step_name, title=title, run=about(look), needs=own, subject=subject)

    return (
        step("account", "The account is an enabled gMSA", _account, domain),
        step("kds-root-key", "The domain can make its password", _kds_root_key, "account"),
        step("permission", "The host may read its password", _permission, "account"),
        step("password", "Its password is read", _password, "permission", "kds-root-key"),
        step("ticket", "It gets a ticket", _ticket, "password"),
        step("delegation", "What it may delegate", _delegation, "ticket"),
        step("spn", "Its service principal names are its own", _spn, "account"),
    )


def _account(examination: Examination, name: str) -> Finding:
    connection, facts = _directory(examination, name)
    account = find_account(connection, facts, _bare(name))
    examination.found[name] = account
    if not account.enabled:
        raise NotPermittedError.of(
            "account-disabled",
            f"{account.account_name} is disabled",
            where=f"account {name}",
            remedy=f"enable it: Enable-ADAccount {account.account_name}, or samba-tool user enable "
            f"'{account.account_name}' (Kerberos: KDC_ERR_CLIENT_REVOKED)",
        )
    problems: list[Problem] = []
    if not account.is_workstation_trust:
        problems.append(
            Problem(
                code="account-no-workstation-trust",
                where=f"account {name}",
                found="userAccountControl lacks WORKSTATION_TRUST_ACCOUNT (0x1000)",
                remedy="set it: Windows hosts fail with error 1787 without it",
            )
        )
    if name_is_taken(connection, facts, _bare(name)):
        problems.append(
            Problem(
                code="account-name-ambiguous",
                where=f"account {name}",
                found=f"another account is called {_bare(name)}, without the $",
                remedy="rename one of them: some programs mistake one for the other",
            )
        )
    types = read_encryption_types(connection, facts, account.account_name)
    # Its keytab is made with keys of every type that is supported here.
    problems += encryption_type_problems(account.account_name, types, Enctype)
    return Finding(f"{account.distinguished_name}, enabled", tuple(problems))


def _kds_root_key(examination: Examination, name: str) -> Finding:
    connection, facts = _directory(examination, name)
    keys = read_kds_root_keys(connection, facts)
    if not keys:
        raise CredspecError.of(
            "kds-root-key-missing",
            "the forest shows no KDS root key",
            where=f"account {name}",
            remedy="make one with Add-KdsRootKey and wait ten hours, or in a test domain with "
            "-EffectiveTime ((Get-Date).AddHours(-10)); samba-tool domain kds root-key create",
        )
    starts = [key.effective_from for key in keys if key.effective_from is not None]
    if not starts:
        return Finding(f"{len(keys)} KDS root key(s); this logon may not see since when")
    first = min(starts)
    if len(starts) == len(keys) and first > examination.now():
        raise CredspecError.of(
            "kds-root-key-not-effective",
            f"the KDS root key is effective only from {first:%Y-%m-%d %H:%M} UTC",
            where=f"account {name}",
            remedy="wait until then: domain controllers have ten hours to replicate a new key",
        )
    return Finding(f"{len(keys)} KDS root key(s), effective since {first:%Y-%m-%d %H:%M} UTC")


def _permission(examination: Examination, name: str) -> Finding:
    """Compare who may read with the token of this logon, and with the present groups."""
    connection, facts = _directory(examination, name)
    account = examination.found[name]
    assert examination.ticket is not None  # noqa: S101 - narrows for the type checker
    own, _, realm = examination.ticket.principal.partition("@")
    is_own_domain = realm.lower() == facts.dns_name.lower()
    token = read_own_token(connection)
    of_now = (read_token_sids(connection, facts, own) if is_own_domain else None) or frozenset()
    through = [sid for sid in account.readers if sid in (token or of_now) or sid in _EVERYONE]
    if not through:
        missed = [sid for sid in account.readers if sid in of_now]
        if missed:
            shown = name_of_sid(connection, facts, missed[0])
            raise _ticket_too_old(examination.ticket, shown, name)
        raise not_permitted(connection, facts, account, reader_of(examination.ticket.principal))
    sid = through[0]
    shown = _EVERYONE.get(sid) or name_of_sid(connection, facts, sid)
    path = membership_path(connection, facts, own, sid) if is_own_domain else ()
    if len(path) == 1:
        return Finding(f"{own} itself is allowed")
    if path:
        first, *others = path
        return Finding(f"allowed through {shown}: {first} is in {', which is in '.join(others)}")
    return Finding(f"allowed through {shown}")


def _ticket_too_old(ticket: Ticket, group: str, name: str) -> NotPermittedError:
    return NotPermittedError.of(
        "membership-newer-than-ticket",
        f"{ticket.principal} is in {group} now, but logged on with a ticket that does not say so "
        f"yet (TGT of {ticket.start:%Y-%m-%d %H:%M:%S} UTC)",
        where=f"account {name}",
        expected="a ticket made after the change of groups",
        remedy="log on again: kinit, or for the host restart credspec agent (Windows: restart the "
        "computer, or klist -li 0x3e7 purge)",
    )


def _password(examination: Examination, name: str) -> Finding:
    connection, facts = _directory(examination, name)
    account = examination.found[name]
    assert examination.ticket is not None  # noqa: S101 - narrows for the type checker
    reader = reader_of(examination.ticket.principal)
    _, password = read_managed_password(connection, facts, _bare(name), reader=reader)
    connection.overwrite_last_answer()()
    examination.passwords[name] = password
    due = examination.now() + password.query_interval
    version = read_key_version(connection, account)
    return Finding(f"kvno {version}; the domain changes it about {due:%Y-%m-%d %H:%M} UTC")


def _ticket(examination: Examination, name: str) -> Finding:
    _, facts = _directory(examination, name)
    account = examination.found[name]
    password = examination.passwords[name]
    ticket = ticket_from_managed_password(account.account_name, facts.realm, password)
    examination.tickets[name] = ticket
    text = f"TGT of {ticket.principal}, {enctype_name(ticket.enctype)}, until "
    text += f"{ticket.end:%Y-%m-%d %H:%M} UTC"
    computed = computer_salt(facts.realm, account.account_name)
    if ticket.salt in {None, computed}:
        return Finding(text)
    due = examination.now() + password.query_interval
    problem = Problem(
        code="account-salt-differs",
        where=f"account {name}",
        found=f"the domain made its keys with the salt {ticket.salt}, of another name than it has",
        expected=computed,
        remedy="tickets and keytabs of credspec are made with the domain's salt; programs that "
        f"compute it make wrong AES keys until the next password, about {due:%Y-%m-%d} UTC",
    )
    return Finding(text, (problem,))


def _delegation(examination: Examination, name: str) -> Finding:
    connection, facts = _directory(examination, name)
    account = examination.found[name].account_name
    return delegation_finding(connection, facts, account, examination.tickets[name])


def _spn(examination: Examination, name: str) -> Finding:
    connection, facts = _directory(examination, name)
    names = examination.found[name].service_principal_names
    if not names:
        return Finding("none: it can log on to services, but no client can log on to it")
    problems: list[Problem] = []
    for spn in names:
        holders = accounts_with_service_principal_name(connection, facts, spn)
        if len(holders) > 1:
            problems.append(
                Problem(
                    code="spn-duplicate",
                    where=f"account {name}",
                    found=f"{spn} belongs to {', '.join(holders)}",
                    expected="one account for each service principal name",
                    remedy="remove it from the others (setspn -D, samba-tool spn delete): the "
                    "domain makes no ticket for a name that is there twice",
                )
            )
    return Finding(", ".join(names[:6]) + (" ..." if len(names) > 6 else ""), tuple(problems))  # noqa: PLR2004


def _bare(name: str) -> str:
    """Return the sAMAccountName of ``NAME`` or ``NAME@SCOPE``."""
    return name.partition("@")[0]


def _directory(examination: Examination, name: str) -> tuple[Connection, DomainFacts]:
    """Return the connection to the domain of an account, and what that domain is."""
    scope = name.partition("@")[2]
    if scope:
        other = examination.others[scope]
        return other.connection, other.facts
    assert examination.connection is not None  # noqa: S101 - narrows for the type checker
    assert examination.facts is not None  # noqa: S101 - narrows for the type checker
    return examination.connection, examination.facts
