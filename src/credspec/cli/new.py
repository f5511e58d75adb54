"""``credspec new``: make a credential spec from what the directory says of a gMSA.

Works on any machine that reaches a domain controller, with the caller's Kerberos ticket or, on a
joined host, with the machine keytab.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from credspec.errors import NotFoundError, NotPermittedError, Problem, UsageError

if TYPE_CHECKING:
    from credspec.agent.config import Config
    from credspec.agent.domain_session import DomainSession
    from credspec.agent.host_identity import HostIdentity
    from credspec.directory.domain import DomainFacts


@dataclass(frozen=True, slots=True)
class NewSpecRequest:
    """What ``New-CredentialSpec`` was asked for.

    `additional_accounts` are pairs of account and domain; a domain of None is that of the main
    account. Of `path` and `file_name` at most one is given.
    """

    account_name: str
    path: str | None = None
    file_name: str | None = None
    domain: str | None = None
    additional_accounts: tuple[tuple[str, str | None], ...] = ()
    no_clobber: bool = False


def make_credential_spec(request: NewSpecRequest) -> Path:
    """Make a spec and write it; return where.

    Every account is looked up before anything is written, and every one that is missing is told.

    Raises:
        CredspecError: of the class of the step that failed.
    """
    from credspec.agent.config import load_config
    from credspec.spec.document import (
        ActiveDirectoryConfig,
        CredentialSpec,
        DomainJoinConfig,
        GroupManagedServiceAccount,
    )
    from credspec.spec.file_name import default_file_name, with_json_suffix
    from credspec.spec.spec_directory import SpecDirectory

    config = load_config()
    names = [request.account_name, *(account for account, _ in request.additional_accounts)]
    domains = [domain for _, domain in request.additional_accounts if domain]
    facts, found = _look_up(config, request.domain, names, domains)
    main, *additional = (name.removesuffix("$") for name in found)
    # The main account in both forms of its domain, the additional ones as they were given.
    accounts = [
        GroupManagedServiceAccount(name=main, scope=facts.dns_name),
        GroupManagedServiceAccount(name=main, scope=facts.netbios_name),
    ]
    accounts += [
        GroupManagedServiceAccount(name=name, scope=of_domain or request.domain or facts.dns_name)
        for name, (_, of_domain) in zip(additional, request.additional_accounts, strict=True)
    ]
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
            group_managed_service_accounts=tuple(accounts)
        ),
    )
    if request.path is not None:
        target = Path(with_json_suffix(request.path))
    else:
        name = request.file_name or default_file_name(facts.netbios_name, main)
        target = config.spec_directory / with_json_suffix(name)
    SpecDirectory(target.parent).write(target.name, spec.to_text(), no_clobber=request.no_clobber)
    return target.absolute()


def _look_up(
    config: Config, domain: str | None, names: list[str], scopes: list[str]
) -> tuple[DomainFacts, list[str]]:
    """Return the domain's facts and the sAMAccountName of each account."""
    from credspec.agent.domain_session import DomainSession
    from credspec.directory.locator import DnsResolver, Locator
    from credspec.kerberos.krb5_conf import AgentKrb5Conf

    with tempfile.TemporaryDirectory(prefix="credspec-") as directory:
        own = Path(directory) / "krb5.conf"
        os.environ["KRB5_CONFIG"] = f"{own}:{os.environ.get('KRB5_CONFIG') or '/etc/krb5.conf'}"
        krb5_conf = AgentKrb5Conf(own)
        identity = _identity(config)
        session = DomainSession(
            domain or identity.domain,
            host_identity=identity,
            locator=Locator(DnsResolver()),
            transport=config.transport,
            ca_file=config.ca_file,
            krb5_conf=krb5_conf,
        )
        try:
            facts = session.facts()
            _require_own_domain(scopes, facts)
            return facts, _find_all(session, names)
        finally:
            session.close()


def _identity(config: Config) -> HostIdentity:
    from credspec.agent.host_identity import HOST_CACHE, CallersTicket, MachineKeytab

    callers = CallersTicket.of_default_cache(datetime.now(UTC))
    if callers is not None:
        return callers
    if not config.keytab.exists():
        raise NotPermittedError.of(
            "no-credentials",
            f"there is no Kerberos ticket, and no machine keytab at {config.keytab}",
            where="logon",
            remedy="run kinit USER@REALM first",
        )
    os.environ["KRB5CCNAME"] = HOST_CACHE
    return MachineKeytab(config.keytab, config.principal)


def _require_own_domain(scopes: list[str], facts: DomainFacts) -> None:
    own = {facts.dns_name.lower(), facts.netbios_name.lower()}
    problems = [
        Problem(
            code="account-other-domain",
            found=f"domain {scope!r}",
            where="AdditionalAccounts",
            expected=f"{facts.dns_name} or {facts.netbios_name}",
            remedy="accounts of other domains are not supported yet",
        )
        for scope in scopes
        if scope.lower() not in own
    ]
    if problems:
        raise UsageError(*problems)


def _find_all(session: DomainSession, names: list[str]) -> list[str]:
    found: list[str] = []
    problems: list[Problem] = []
    for name in names:
        try:
            found.append(session.find(name).account_name)
        except (NotFoundError, UsageError) as error:
            problems += error.problems
    if problems:
        raise NotFoundError(*dict.fromkeys(problems))
    return found


@click.command(
    epilog="Example: credspec new WebApp01 --path ./www.json",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("account")
@click.option("--path", help="Write the spec to this file.", type=click.Path(dir_okay=False))
@click.option("--file-name", help="File in the spec directory.  [default: NETBIOS_ACCOUNT.json]")
@click.option("--domain", help="DNS name of the domain.  [default: that of the ticket or host]")
@click.option("--additional-account", multiple=True, help="Another account; may be repeated.")
@click.option("--no-clobber", is_flag=True, help="Keep a file that exists.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def new(  # noqa: PLR0917 - click passes them by name
    account: str,
    path: str | None,
    file_name: str | None,
    domain: str | None,
    additional_account: tuple[str, ...],
    no_clobber: bool,
    output: str,
) -> None:
    """Make a credential spec for the gMSA ACCOUNT from what the directory says of it.

    Logs on with your Kerberos ticket, or with the machine keytab if you have none. What PowerShell
    users type works too: New-CredentialSpec -AccountName WebApp01 -Path ./www.json
    """
    if path is not None and file_name is not None:
        raise click.UsageError("--path and --file-name exclude each other.")
    written = make_credential_spec(
        NewSpecRequest(
            account_name=account,
            path=path,
            file_name=file_name,
            domain=domain,
            additional_accounts=tuple((name, None) for name in additional_account),
            no_clobber=no_clobber,
        )
    )
    if output == "json":
        click.echo(json.dumps({"name": written.name, "path": str(written)}))
    else:
        click.echo(str(written))
