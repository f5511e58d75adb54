"""``credspec check``: the doctor."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from credspec.cli.check_report import (
    hint_at_directory,
    print_all,
    print_step,
    report_pause,
    show_nothing,
)
from credspec.cli.completion import complete_spec, complete_windows_word
from credspec.cli.durations import Duration
from credspec.cli.help_text import examples
from credspec.cli.new import ask_on_terminal
from credspec.errors import ExitStatus, UsageError

if TYPE_CHECKING:
    from credspec.config.host import Config
    from credspec.doctor.step import StepResult
    from credspec.kerberos.krb5_conf import AgentKrb5Conf
    from credspec.kerberos.service_names import ServiceName
    from credspec.session.host_identity import HostIdentity
    from credspec.session.logon import Logon

_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(
    epilog=examples(
        "credspec check www.json",
        "credspec check --account WebApp01 --directory-only",
        "credspec check --explain 1311",
        "credspec check --wait 2m --directory-only",
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument(
    "spec", required=False, type=click.Path(allow_dash=True), shell_complete=complete_spec
)
@click.option("--account", multiple=True, help="Check this gMSA without a spec; may be repeated.")
@click.option(
    "--service",
    "services",
    multiple=True,
    metavar="SPN",
    help="Say whose this service is; may be repeated.",
)
@click.option("--domain", help="DNS name of the domain, without a spec.  [default: the host's]")
@click.option("--own-ticket", is_flag=True, help="Log on with your ticket, not as the host.")
@click.option("--user", metavar="USER@REALM", help="Log on as this user; the password is asked.")
@click.option("--keytab", type=_FILE, help="Log on with this keytab, not the machine's.")
@click.option("--directory-only", is_flag=True, help="Leave out agent, runtime and gateway.")
@click.option(
    "--docker-socket",
    type=click.Path(path_type=Path, readable=False),  # the step on Docker says what it may do
    default=Path("/var/run/docker.sock"),
    show_default=True,
    help="Where dockerd listens.",
)
@click.option(
    "--wait",
    type=Duration(),
    metavar="DURATION",
    help="Repeat until all is well, for at most this time (90s, 2m); for scripts at boot.",
)
@click.option(
    "--explain",
    metavar="WORD",
    shell_complete=complete_windows_word,
    help="Say what a Windows error number means here.",
)
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def check(
    *,
    spec: str | None,
    account: tuple[str, ...],
    services: tuple[str, ...],
    domain: str | None,
    own_ticket: bool,
    user: str | None,
    keytab: Path | None,
    directory_only: bool,
    docker_socket: Path,
    wait: float | None,
    explain: str | None,
    output: str,
) -> int:
    """Check every step from a credential spec to a ticket, and name the first cause.

    SPEC is a path, file://NAME, raw://DOCUMENT or a name in the spec directory. Without it the
    host, its domain and each --account are checked. Nothing is changed. Logs on as the host does,
    with the machine keytab, or with your ticket if there is none. Exit status: 0 if all is well,
    else that of the first cause.

    Known from Windows: 1311, 1355 and 1722 (dns, dc-ports, agent), 1787 (domain, account), 1398
    (clock), nltest /sc_verify (ldap), klist get krbtgt (ticket); --explain says more.
    """
    if explain is not None:
        _explain(explain)
        return ExitStatus.OK
    if wait is not None and user is not None:
        raise click.UsageError("--wait cannot prompt for a password: use --keytab, not --user.")
    if spec is not None and (account or domain):
        raise click.UsageError("A spec names its own domain and accounts.")

    from credspec.cli.spec_argument import spec_source
    from credspec.config.host import load_config
    from credspec.directory.account_identity import valid_account_name
    from credspec.directory.domain_names import valid_domain
    from credspec.doctor.examination import Examination
    from credspec.doctor.waiting import examine_until_well, first_cause
    from credspec.providers.selection import Providers
    from credspec.service.process_safety import forbid_core_dumps
    from credspec.session.logon import Logon, own_krb5_conf

    forbid_core_dumps()  # it reads managed passwords
    config = load_config()
    source = None if spec is None else spec_source(spec, config.spec_directory)
    if source is not None and spec == "-":
        source = cache(source)  # it cannot be read a second time

    names = _services(services)

    def examine(show: Callable[[StepResult], None]) -> list[StepResult]:
        with ExitStack() as stack:
            krb5_conf = stack.enter_context(own_krb5_conf())
            logon = Logon(user=user, keytab=keytab, ask_password=ask_on_terminal)
            examination = Examination(
                config=config,
                krb5_conf=krb5_conf,
                identity=_identity(config, logon, krb5_conf, own_ticket=own_ticket),
                spec_source=source,
                domain=None if domain is None else valid_domain(domain),
                accounts=tuple(valid_account_name(name) for name in account),
                services=names,
                only_directory=directory_only,
                providers=None if own_ticket or user or keytab else Providers(config.providers),
                docker_socket=docker_socket,
            )
            stack.callback(examination.close)
            results: list[StepResult] = []
            for result in examination.results():
                results.append(result)
                show(result)
            return results

    show = print_step if output == "text" else show_nothing
    if wait is None:
        results = examine(show)
    else:
        results = examine_until_well(partial(examine, show_nothing), wait, report=report_pause)
        for result in results:
            show(result)
    first = first_cause(results)
    print_all(results, first, output)
    if spec is not None and not directory_only:
        hint_at_directory(spec, config.spec_directory)
    return ExitStatus.OK if first is None else first.exit_status


def _identity(
    config: Config, logon: Logon, krb5_conf: AgentKrb5Conf, *, own_ticket: bool
) -> HostIdentity:
    from credspec.session.host_identity import HOST_CACHE, MachineKeytab
    from credspec.session.logon import NoCredentialsError, log_on

    no_choice = logon.user is None and logon.keytab is None
    if no_choice and not own_ticket and os.access(config.keytab, os.R_OK):
        os.environ["KRB5CCNAME"] = HOST_CACHE
        return MachineKeytab(config.keytab, config.principal)
    try:
        return log_on(config, logon, krb5_conf)
    except NoCredentialsError:
        # Neither ticket nor keytab: the step on the host identity says so in its place.
        return MachineKeytab(config.keytab, config.principal)


def _services(texts: tuple[str, ...]) -> tuple[ServiceName, ...]:
    from credspec.kerberos.service_names import ServiceName

    found = []
    for text in texts:
        name = ServiceName.parse(text)
        if name is None:
            raise UsageError.of(
                "service-name-invalid",
                f"{text[:80]!r} is not a service principal name",
                where="--service",
                expected="CLASS/HOST[:PORT], such as HTTP/www.contoso.com; never krbtgt",
            )
        found.append(name)
    return tuple(found)


def _explain(word: str) -> None:
    from credspec.doctor.windows_words import WINDOWS_WORDS, find_windows_word

    entry = find_windows_word(word)
    if entry is None:
        raise UsageError.of(
            "windows-word-unknown",
            repr(word[:60]),
            where="--explain",
            expected=f"one of {', '.join(known.word for known in WINDOWS_WORDS)}",
        )
    click.echo(f"{entry.word} ({entry.symbol}): {entry.meaning}")
    click.echo(f"Steps that check it: {', '.join(entry.steps)}")
