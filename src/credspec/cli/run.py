"""``credspec run``: a program with the tickets of a credential spec, without a container."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from credspec.cli.completion import complete_spec
from credspec.cli.help_text import examples
from credspec.errors import CredspecError, NotPermittedError, UsageError

if TYPE_CHECKING:
    from credspec.run.supervised_program import ProcessUser


@click.command(
    epilog=examples(
        "credspec run --spec www.json -- klist",
        "credspec run --spec file://www.json --user nobody -- klist",
        "credspec run --spec www.json --tickets services --service HTTP/www.contoso.com -- klist",
    ),
    context_settings={
        "help_option_names": ["-h", "--help"],
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
    },
)
@click.option(
    "--spec",
    required=True,
    shell_complete=complete_spec,
    help="Path, file://NAME, raw://DOCUMENT, or name.",
)
@click.option("--user", metavar="NAME", help="Run the program as this user; needs root.")
@click.option("--keytab", is_flag=True, help="Add a keytab, to accept logons; see [policy].")
@click.option(
    "--tickets",
    type=click.Choice(["tgt", "services", "broker"]),
    default="tgt",
    show_default=True,
    help="What COMMAND has: a TGT, or tickets of the services only.",
)
@click.option(
    "--service",
    "services",
    multiple=True,
    metavar="SPN",
    help="With --tickets: a service, such as HTTP/www.contoso.com; may be repeated.",
)
@click.option("--mode", default="0600", show_default=True, help="Of the files: 0640 for a group.")
@click.option(
    "--wait",
    type=click.FloatRange(0, 3600),
    metavar="SECONDS",
    help="How long to wait for agent and domain.  [wait_seconds of the configuration, else 30]",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(
    *,
    spec: str,
    user: str | None,
    keytab: bool,
    tickets: str,
    services: tuple[str, ...],
    mode: str,
    wait: float | None,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND with the tickets of a credential spec, which stay fresh while it runs.

    KRB5CCNAME and KRB5_CONFIG are set for it. The exit status is COMMAND's; 128 and the signal's
    number if one ended it; 127 if there is no such program, 126 if it cannot be started.

    Waits for an agent or a domain that is not there yet, as after a boot; never after a refusal.
    """
    from credspec.config.host import load_config
    from credspec.contract.start_wait import DEFAULT_SECONDS
    from credspec.contract.ticket_options import TicketRequest
    from credspec.run.process_lease import run_process

    config = load_config()
    seconds = next(v for v in (wait, config.wait_seconds, DEFAULT_SECONDS) if v is not None)
    whom = _user(user) if user else None
    request = TicketRequest(
        _reference(spec, config.spec_directory),
        whom.uid if whom else os.geteuid(),
        whom.gid if whom else os.getegid(),
        _mode(mode),
        keytab=keytab,
        **_kind(tickets, services, keytab=keytab),
    )
    try:
        status = run_process(config, request, command, whom, wait_seconds=seconds)
    except CredspecError as error:
        if error.code == "policy-spec-source" and "://" not in spec:
            raise _elsewhere(spec, config.spec_directory) from None
        raise
    sys.exit(status)


def _elsewhere(spec: str, spec_directory: Path) -> NotPermittedError:
    """Return the error for a file whose document the policy refuses; ``raw://`` was not typed."""
    name = Path(spec).name
    return NotPermittedError.of(
        "policy-spec-source",
        f"it is not in {spec_directory}, and this host takes no specs from elsewhere",
        where=spec[:200],
        expected=f"a file in {spec_directory}",
        remedy=f"as root: install -m 0644 {shlex.quote(spec)} {spec_directory}/, then --spec {name}"
        ' (or add "raw" to spec_sources under [policy] in the configuration)',
    )


def _reference(text: str, spec_directory: Path) -> str:
    """Return the reference that the agent takes; a document elsewhere goes along as it is."""
    from credspec.cli.spec_argument import spec_source

    if "://" in text:
        return text
    inside = Path(os.path.realpath(text))
    directory = Path(os.path.realpath(spec_directory))
    if inside.is_file() and inside.is_relative_to(directory):
        return f"file://{inside.relative_to(directory)}"
    for name in (text, f"{text}.json"):
        if "/" not in text and not Path(text).exists() and (spec_directory / name).is_file():
            return f"file://{name}"
    document = spec_source(text, spec_directory)()
    try:
        return f"raw://{document.decode('utf-8-sig')}"
    except UnicodeDecodeError:
        raise UsageError.of(
            "spec-not-utf-8",
            "the document is not UTF-8",
            where=text[:200],
            remedy="put it into the spec directory, or convert it: credspec convert --to json",
        ) from None


def _mode(text: str) -> int:
    from credspec.contract.errors import ShimError
    from credspec.contract.ticket_options import file_mode

    try:
        return file_mode(text)
    except ShimError:
        raise UsageError.of(
            "option-invalid",
            text[:80],
            where="--mode",
            expected="an octal mode such as 0640, which the owner can read",
        ) from None


def _kind(tickets: str, services: tuple[str, ...], *, keytab: bool) -> dict[str, Any]:
    from credspec.contract.errors import ShimError
    from credspec.contract.ticket_options import kind_of_tickets

    try:
        kind, listed = kind_of_tickets(tickets, ",".join(services), keytab=keytab)
    except ShimError as error:
        raise UsageError.of(error.code, error.text, where="--tickets") from None
    return {"tickets": kind, "services": listed}


def _user(name: str) -> ProcessUser:
    import pwd

    from credspec.run.supervised_program import ProcessUser

    try:
        entry = pwd.getpwnam(name)
    except (KeyError, ValueError):
        raise UsageError.of(
            "user-unknown", f"there is no user {name[:80]!r}", where="--user"
        ) from None
    if os.geteuid() != 0:
        raise UsageError.of(
            "user-needs-root", "only root can run programs as others", where="--user"
        )
    return ProcessUser(
        uid=entry.pw_uid,
        gid=entry.pw_gid,
        groups=tuple(os.getgrouplist(name, entry.pw_gid)),
        environment={"HOME": entry.pw_dir, "USER": name, "LOGNAME": name, "SHELL": entry.pw_shell},
    )
