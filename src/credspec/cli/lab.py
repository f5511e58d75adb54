"""``credspec lab``: a throwaway real Active Directory domain."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from credspec.cli.completion import complete_lab
from credspec.cli.help_text import examples
from credspec.cli.progress import Progress

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_NAME = click.option(
    "--name",
    default="default",
    show_default=True,
    envvar="CREDSPEC_LAB",  # which `credspec lab exec` and `env` set
    shell_complete=complete_lab,
    help="Name of the lab.",
)
_OUTPUT = click.option(
    "--output", type=click.Choice(["text", "json"]), default="text", show_default=True
)


@click.group(
    epilog=examples(
        "credspec lab up",
        "credspec lab exec -- New-CredentialSpec -AccountName WebApp01 -Path ./www.json",
        "credspec lab exec -- credspec agent",
        "credspec lab down",
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
)
def lab() -> None:
    """Run a throwaway real Active Directory domain, in a network namespace of its own.

    It has a joined host (LABHOST$), gMSAs that this host may read (WebApp01 to WebApp05), one that
    it may not (Forbidden01), a disabled one (Disabled01), a PostgreSQL server that takes their
    Kerberos logons, and a file share that they may write (//dc1.<domain>/data). Nothing of the
    host's /etc is changed, and `down` leaves nothing.
    """


def _check_root() -> None:
    """Refuse before anything is done; namespaces, a controller and mounts are root's.

    Raises:
        NotPermittedError: `lab-needs-root`.
    """
    from credspec.errors import NotPermittedError

    if os.geteuid() != 0:
        raise NotPermittedError.of(
            "lab-needs-root",
            f"this is user {os.geteuid()}",
            where="credspec lab",
            expected="root",
            remedy="run it with sudo, in a container or virtual machine of your own",
        )


@lab.command(epilog=examples("credspec lab up --name other --realm CORP.TEST --domains 2"))
@_NAME
@click.option("--realm", default="EXAMPLE.TEST", show_default=True, help="Kerberos realm.")
@click.option("--netbios", help="NetBIOS name.  [default: the realm's first part]")
@click.option(
    "--controllers",
    type=click.IntRange(1, 2),
    default=1,
    show_default=True,
    help="Domain controllers; the second one is added to a lab that is up.",
)
@click.option(
    "--domains",
    type=click.IntRange(1, 2),
    default=1,
    show_default=True,
    help="Domains; the second one, OTHER.TEST, is a lab NAME-trusted of its own.",
)
def up(name: str, realm: str, netbios: str | None, controllers: int, domains: int) -> None:
    """Bring a lab up; one that is up stays as it is.

    With two domains, each trusts the other, and the lab's host may read the password of the gMSA
    OtherApp01 in OTHER.TEST.
    """
    from credspec.lab import provisioning, second_controller, trust

    _check_root()
    started = time.monotonic()
    with Progress() as progress, _interrupted_by_signals():
        found = provisioning.up(name, realm=realm, netbios=netbios, progress=progress)
        if controllers > 1:
            second_controller.up_second_controller(found, progress=progress)
        if domains > 1:
            trust.up_trusted(found, name=trust.trusted_name(name), progress=progress)
    if progress.steps:
        took = time.monotonic() - started
        click.echo(f"Lab {name!r} is up: domain {found.dns_domain}, {took:.1f} s.", err=True)
    else:
        click.echo(f"Lab {name!r} is already up.", err=True)


@contextlib.contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end it as Ctrl-C does: what was begun is removed."""

    def interrupt(number: int, frame: object) -> None:
        del number, frame
        for each in _ENDING:
            signal.signal(each, signal.SIG_IGN)  # the removal is not to be interrupted
        # Not through sys.stderr: it may be in the middle of a write, which must not begin another.
        with contextlib.suppress(OSError):
            os.write(2, b"\nInterrupted: removing what was begun\n")
        raise KeyboardInterrupt

    before = {each: signal.signal(each, interrupt) for each in _ENDING}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@lab.command(epilog=examples("credspec lab down --name other"))
@_NAME
@click.option("--all", "every", is_flag=True, help="All labs of this machine.")
def down(name: str, every: bool) -> None:
    """Remove a lab and everything it made; one that does not exist is fine."""
    from credspec.errors import NotFoundError
    from credspec.lab import domain
    from credspec.lab.trust import trusted_name

    _check_root()
    if every:
        for found in list(domain.all_labs()):
            found.down()
        return
    for wanted in (trusted_name(name), name):
        with contextlib.suppress(NotFoundError):
            domain.open_lab(wanted).down()


@lab.command(epilog=examples("credspec lab status --output json"))
@_OUTPUT
def status(output: str) -> None:
    """Show all labs of this machine."""
    from credspec.lab import domain
    from credspec.lab.second_controller import find_second_controller

    rows: list[dict[str, Any]] = [
        {
            "name": found.name,
            "running": found.is_running(),
            "domain": found.dns_domain,
            "dc": found.dc_host,
            "address": found.dc_address,
            "second_controller": second
            and {"dc": second.host, "addresses": second.addresses, "running": second.is_running()},
            "config": str(found.config_path),
            "specs": str(found.specs_directory),
        }
        for found in domain.all_labs()
        for second in [find_second_controller(found)]
    ]
    if output == "json":
        click.echo(json.dumps(rows, indent=2))
    elif not rows:
        click.echo("No labs.")
    for row in rows if output == "text" else ():
        state = "up" if row["running"] else "not running"
        line = f"{row['name']}: {state}, domain {row['domain']}, {row['dc']} {row['address']}"
        if row["second_controller"]:
            line += ", {dc} {addresses[0]}".format_map(row["second_controller"])
        click.echo(line)


@lab.command(epilog=examples('eval "$(credspec lab env)"'))
@_NAME
def env(name: str) -> None:
    """Print the variables by which programs find the lab, for eval.

    Names of the domain resolve only under `credspec lab exec`, since the host's /etc stays as it
    is.
    """
    from credspec.lab import domain

    for variable, value in domain.open_lab(name).environment.items():
        click.echo(f"export {variable}={shlex.quote(value)}")


@lab.command(
    "exec",
    context_settings={"ignore_unknown_options": True},
    epilog=examples("credspec lab exec -- getent hosts dc1.example.test"),
)
@_NAME
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(name: str, command: tuple[str, ...]) -> None:
    """Run COMMAND as on the lab's joined host: its DNS, its Kerberos, its configuration."""
    from credspec.lab import domain
    from credspec.lab.namespaces import enter

    _check_root()
    found = domain.open_lab(name)
    os.environ |= found.environment
    # The commands of this installation are found, activated or not.
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    enter(found.plan(), list(command))


@lab.command(
    "samba-tool",
    context_settings={"ignore_unknown_options": True},
    epilog=examples("credspec lab samba-tool -- user list"),
)
@_NAME
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED)
def samba_tool(name: str, arguments: tuple[str, ...]) -> int:
    """Run samba-tool on the lab's domain, also while its controller is stopped.

    What it prints and its exit status are samba-tool's own.
    """
    from credspec.lab import domain

    _check_root()
    return domain.open_lab(name).run_samba_tool(*arguments)


@lab.group(
    epilog=examples("credspec lab account add WebApp09"),
    context_settings={"help_option_names": ["-h", "--help"]},
)
def account() -> None:
    """Make further gMSAs in a lab."""


@account.command(
    "add",
    epilog=examples(
        "credspec lab account add WebApp09",
        "credspec lab account add WebApp10 --service-principal-name HTTP/ten.example.test",
    ),
)
@_NAME
@click.argument("account_name", metavar="ACCOUNT")
@click.option(
    "--reader",
    multiple=True,
    help="Who may read its password; may be repeated.  [default: LABHOST$, the lab's host]",
)
@click.option(
    "--service-principal-name",
    multiple=True,
    metavar="SPN",
    help="A service that it accepts logons for; may be repeated.",
)
def account_add(
    name: str,
    account_name: str,
    reader: tuple[str, ...],
    service_principal_name: tuple[str, ...],
) -> None:
    """Make the gMSA ACCOUNT, enabled, with a password that the lab's host may read."""
    from credspec.lab.accounts import make_account
    from credspec.lab.domain import open_lab
    from credspec.lab.provisioning import HOST_ACCOUNT

    _check_root()
    make_account(
        open_lab(name),
        account_name,
        readers=reader or (HOST_ACCOUNT,),
        service_principal_names=service_principal_name,
    )
    bare = account_name.removesuffix("$")
    click.echo(f"{bare}: credspec lab exec -- credspec new {bare} --path ./{bare.lower()}.json")


@lab.command(epilog=examples("credspec lab image | docker import - credspec-client"))
def image() -> None:
    """Write a container image with klist, ldapwhoami and psql to standard output, as tar."""
    from credspec.lab.client_image import write_client_image

    if sys.stdout.isatty():
        raise click.UsageError("Standard output is a terminal; pipe it to `docker import - NAME`.")
    write_client_image(sys.stdout.buffer)
