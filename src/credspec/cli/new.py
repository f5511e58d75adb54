"""``credspec new``: make a credential spec from what the directory says of a gMSA.

Works on any machine that reaches a domain controller: with the caller's Kerberos ticket, a keytab,
a typed password or, on a joined host, with the machine keytab.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

import click

from credspec.cli.completion import complete_plugin
from credspec.cli.help_text import examples
from credspec.errors import NoAnswerError, NotFoundError, Problem, UnreachableError, UsageError

if TYPE_CHECKING:
    from credspec.config.host import Config
    from credspec.directory.domain import DomainFacts
    from credspec.session.domain_session import DomainSession
    from credspec.session.logon import Logon
    from credspec.spec.document import GroupManagedServiceAccount


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSpecRequest:
    """What ``New-CredentialSpec`` was asked for.

    Accounts may be named in any form that the directory knows. `additional_accounts` are pairs of
    account and domain; a domain of None is that of the main account. Of `path` and `file_name` at
    most one is given. `host_account` is ``PLUGIN=INPUT``, see `credspec.spec.host_account_plugins`.
    `user` and `keytab` say what to log on with, see `credspec.session.logon.Logon`.
    """

    account_name: str
    path: str | None = None
    file_name: str | None = None
    domain: str | None = None
    additional_accounts: tuple[tuple[str, str | None], ...] = ()
    no_clobber: bool = False
    host_account: str | None = None
    user: str | None = None
    keytab: str | None = None


def make_credential_spec(
    request: NewSpecRequest, ask_password: Callable[[str], str] | None = None
) -> Path:
    """Make a spec and write it; return where.

    Every account is looked up before anything is written, and every missing one is reported.
    `ask_password` is called with a principal if its password is needed.

    Raises:
        CredspecError: of the class of the step that failed.
    """
    from credspec.config.host import load_config
    from credspec.session.logon import Logon
    from credspec.spec.document import ActiveDirectoryConfig, CredentialSpec, DomainJoinConfig
    from credspec.spec.file_name import default_file_name, valid_file_name, with_json_suffix
    from credspec.spec.host_account_plugins import host_account_config
    from credspec.spec.spec_directory import SpecDirectory

    config = load_config()
    # What the user typed is checked before anybody is asked for a password.
    if request.path is not None:
        _check_path(request.path)
    host = None if request.host_account is None else host_account_config(request.host_account)
    keytab = None if request.keytab is None else Path(request.keytab)
    file_name = None if request.file_name is None else valid_file_name(request.file_name)
    logon = Logon(user=request.user, keytab=keytab, ask_password=ask_password)
    facts, main, accounts = _look_up(config, logon, request)
    spec = CredentialSpec(
        cms_plugins=("ActiveDirectory",),
        domain_join_config=DomainJoinConfig(
            sid=facts.sid,
            machine_account_name=main,
            guid=facts.guid,
            dns_tree_name=facts.forest,
            dns_name=facts.dns_name,
            net_bios_name=facts.netbios_name,
        ),
        active_directory_config=ActiveDirectoryConfig(
            group_managed_service_accounts=accounts, host_account_config=host
        ),
    )
    if request.path is not None:
        target = Path(with_json_suffix(request.path))
    else:
        name = file_name or default_file_name(facts.netbios_name, main)
        target = config.spec_directory / with_json_suffix(name)
    SpecDirectory(target.parent).write(target.name, spec.to_text(), no_clobber=request.no_clobber)
    return target.absolute()


def _check_path(path: str) -> None:
    """Refuse a path of Windows, which would become a file with an odd name here.

    Raises:
        UsageError: `path-of-windows`, `path-is-directory`.
    """
    if PureWindowsPath(path).drive:
        name = PureWindowsPath(path).name or "www.json"
        raise UsageError.of(
            "path-of-windows",
            f"{path[:120]!r} is a path of Windows",
            where="path",
            expected="a path of this machine",
            remedy=f"give -Path ./{name}, or -FileName {name} for the spec directory",
        )
    if Path(path).is_dir():
        raise UsageError.of(
            "path-is-directory",
            f"{path[:120]!r} is a directory",
            where="path",
            expected="the path of the file to write",
            remedy=f"give -Path {path.rstrip('/')}/www.json",
        )


def _look_up(
    config: Config, logon: Logon, request: NewSpecRequest
) -> tuple[DomainFacts, str, tuple[GroupManagedServiceAccount, ...]]:
    """Return the facts of the main account's domain, its name, and all entries of the spec."""
    from credspec.directory.account_identity import parse_account_identity
    from credspec.directory.domain import check_netbios_name
    from credspec.session.logon import log_on, own_krb5_conf
    from credspec.session.open_session import open_session
    from credspec.spec.document import GroupManagedServiceAccount

    with ExitStack() as stack:
        krb5_conf = stack.enter_context(own_krb5_conf())
        named = parse_account_identity(request.account_name).domain
        for name, _ in request.additional_accounts:
            parse_account_identity(name)
        identity = log_on(config, logon, krb5_conf)
        sessions: dict[str, DomainSession] = {}

        def session_of(domain: str) -> DomainSession:
            if domain.lower() not in sessions:
                opened = open_session(config, identity, krb5_conf, domain)
                stack.callback(opened.close)
                sessions[domain.lower()] = opened
            return sessions[domain.lower()]

        dns_name = named if named and "." in named else identity.domain
        home = session_of(request.domain or dns_name)
        facts = home.facts()
        wanted = [(request.account_name, None), *request.additional_accounts]
        problems: list[Problem] = []
        found: list[str] = []
        for name, of_domain in wanted:
            try:
                domain = _dns_name_of(of_domain, facts, home)
                session = home if domain is None else session_of(domain)
                if domain is not None and of_domain is not None and "." not in of_domain:
                    check_netbios_name(session.facts(), of_domain, facts.dns_name)
                account = session.find(name)
                if not account.enabled:
                    _warn_of_disabled(account.account_name)
                found.append(account.account_name.removesuffix("$"))
            except NoAnswerError:
                raise  # nothing else need be asked then
            except (NotFoundError, UsageError, UnreachableError) as error:
                problems += error.problems
        if problems:
            raise NotFoundError(*dict.fromkeys(problems))
        main, *additional = found
        # The main account in both forms of its domain, the additional ones as they were given.
        entries = [(main, facts.dns_name), (main, facts.netbios_name)]
        entries += [
            (name, of_domain or request.domain or facts.dns_name)
            for name, (_, of_domain) in zip(additional, request.additional_accounts, strict=True)
        ]
        accounts = [GroupManagedServiceAccount(name=name, scope=scope) for name, scope in entries]
        return facts, main, tuple(accounts)


def _warn_of_disabled(account_name: str) -> None:
    """Say that a spec is right and its account is of no use yet, as samba-tool makes them."""
    problem = Problem(
        code="account-disabled",
        found=f"{account_name} is disabled",
        remedy=f"enable it: Enable-ADAccount {account_name}, or samba-tool user enable "
        f"'{account_name}'",
    )
    click.echo(f"credspec: warning: {problem.text()} [{problem.code}]", err=True)


def _dns_name_of(domain: str | None, facts: DomainFacts, home: DomainSession) -> str | None:
    """Return the DNS name of another domain than the main account's, None for that one itself."""
    if domain is None or domain.lower() in {facts.dns_name.lower(), facts.netbios_name.lower()}:
        return None
    return home.domain_named(domain)


def ask_on_terminal(principal: str) -> str:
    """Ask for a password without showing it; without a terminal it is the first line of input."""
    if sys.stdin.isatty():
        password: str = click.prompt(f"Password of {principal}", hide_input=True, err=True)
        return password
    return sys.stdin.readline().rstrip("\r\n")


def _additional(text: str) -> tuple[str, str | None]:
    r"""Read ``NAME``, ``NAME@domain`` or ``DOMAIN\NAME`` of an additional account."""
    from credspec.directory.account_identity import IdentityForm, parse_account_identity

    identity = parse_account_identity(text)
    if identity.form in {IdentityForm.USER_PRINCIPAL_NAME, IdentityForm.LOGON_NAME}:
        return identity.value, identity.domain
    return text, identity.domain


@click.command(
    epilog=examples(
        "credspec new WebApp01 --path ./www.json",
        "credspec new WebApp01 --additional-account WebApp02 --file-name both",
        "credspec new WebApp01 --host-account rancher=cattle-gmsa:reader",
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("account")
@click.option("--path", help="Write the spec to this file.", type=click.Path(dir_okay=False))
@click.option("--file-name", help="File in the spec directory.  [default: NETBIOS_ACCOUNT.json]")
@click.option("--domain", help="DNS name of the domain.  [default: that of the ticket or host]")
@click.option(
    "--additional-account",
    multiple=True,
    metavar="NAME[@DOMAIN]",
    help="Another account, perhaps of another domain; may be repeated.",
)
@click.option(
    "--host-account",
    metavar="PLUGIN=INPUT",
    shell_complete=complete_plugin,
    help="Where hosts outside the domain get their account: rancher, azure-key-vault, aws, "
    "aws-windows, aws-secret-name, credspec, or a GUID in braces.",
)
@click.option("--no-clobber", is_flag=True, help="Keep a file that exists.")
@click.option("--user", metavar="USER@REALM", help="Log on as this user; the password is asked.")
@click.option(
    "--keytab", type=click.Path(exists=True, dir_okay=False), help="Log on with this keytab."
)
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def new(
    *,
    account: str,
    path: str | None,
    file_name: str | None,
    domain: str | None,
    additional_account: tuple[str, ...],
    host_account: str | None,
    no_clobber: bool,
    user: str | None,
    keytab: str | None,
    output: str,
) -> None:
    r"""Make a credential spec for the gMSA ACCOUNT from what the directory says of it.

    ACCOUNT is a sAMAccountName, a distinguished name, a GUID, a SID, DOMAIN\name or name@domain.
    Logs on with your Kerberos ticket, or with the machine keytab if you have none; --user and
    --keytab choose something else. What PowerShell users type works too: New-CredentialSpec
    -AccountName WebApp01 -Path ./www.json
    """
    if path is not None and file_name is not None:
        raise click.UsageError("--path and --file-name exclude each other.")
    written = make_credential_spec(
        NewSpecRequest(
            account_name=account,
            path=path,
            file_name=file_name,
            domain=domain,
            additional_accounts=tuple(map(_additional, additional_account)),
            no_clobber=no_clobber,
            host_account=host_account,
            user=user,
            keytab=keytab,
        ),
        ask_on_terminal,
    )
    if output == "json":
        click.echo(json.dumps({"name": written.name, "path": str(written)}))
    else:
        click.echo(str(written))
