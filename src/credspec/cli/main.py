"""The ``credspec`` command: parses, calls the packages below, prints.

Sub-commands are imported only when they are asked for, so that ``credspec --help`` and ``credspec
lint`` start fast and work without the native packages a host needs.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from typing import Final

import click

from credspec.cli.help_text import examples
from credspec.errors import CredspecError, ExitStatus

# name: (module, attribute, one-line help)
_COMMANDS: Final = {
    "account-provider": (
        "credspec.cli.account_provider",
        "account_provider",
        "Give Windows hosts their host accounts (Rancher's API).",
    ),
    "agent": ("credspec.cli.agent", "agent", "Run the host agent."),
    "check": ("credspec.cli.check", "check", "Check every step from spec to ticket."),
    "convert": ("credspec.cli.convert", "convert", "Convert a spec for Kubernetes, Compose, ..."),
    "docker-gateway": (
        "credspec.cli.docker_gateway",
        "docker_gateway",
        "Run the Docker gateway, which adds credentialspec= to the Docker API.",
    ),
    "events": ("credspec.cli.events", "events", "Show the audit log and the agent's events."),
    "import": ("credspec.cli.import_", "import_", "Migrate from credentials-fetcher."),
    "kubernetes": ("credspec.cli.kubernetes", "kubernetes", "Serve Linux pods of Kubernetes."),
    "lab": ("credspec.cli.lab", "lab", "Run a throwaway Active Directory domain."),
    "lease": ("credspec.cli.lease", "lease", "Cut a container off from its account."),
    "lint": ("credspec.cli.lint", "lint", "Report all problems of credential specs, and fix them."),
    "list": ("credspec.cli.list", "list_specs", "List the specs of the spec directory."),
    "metrics": ("credspec.cli.metrics", "metrics", "Print the agent's metrics, for Prometheus."),
    "new": ("credspec.cli.new", "new", "Make a credential spec for a gMSA from the directory."),
    "run": ("credspec.cli.run", "run", "Run a program with the tickets of a credential spec."),
    "schema": ("credspec.cli.schema", "schema", "Print the JSON Schema of credential specs."),
    "show": ("credspec.cli.show", "show", "Show the contents of a credential spec."),
    "status": ("credspec.cli.status", "status", "Show the agent's identities and leases."),
    "support-bundle": (
        "credspec.cli.support_bundle",
        "support_bundle",
        "Collect diagnostics for support, without secrets.",
    ),
    "setup": (
        "credspec.cli.setup",
        "setup",
        "Set up the agent as a service, and container engines.",
    ),
}

# They read documents in which passwords may be, or are given passwords. `run` is not one of them:
# its program may leave core files.
_WITH_SECRETS: Final = frozenset(
    {"check", "convert", "docker-gateway", "import", "lint", "list", "new", "show"}
    | {"support-bundle"}
)


# What is not of the extra `host`.
_EXTRAS: Final = {
    "boto3": "aws",
    "botocore": "aws",
    "azure": "azure",
    "hvac": "vault",
    "grpc": "grpc",
    "google": "grpc",
    "aiohttp": "kubernetes",
}


class _LazyGroup(click.Group):
    """A command group that imports a sub-command when it is first needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        if cmd_name in _WITH_SECRETS:
            from credspec.service.process_safety import forbid_core_dumps

            forbid_core_dumps()
        module, attribute, _ = _COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)  # noqa: S101
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest a sub-command for one that does not exist, without importing any."""
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand:
            raise click.NoSuchCommand(args[0], possibilities=_COMMANDS, ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the sub-commands from the table above, without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, _COMMANDS[name][2]) for name in sorted(_COMMANDS)])


def _show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    del param
    if value and not ctx.resilient_parsing:
        from credspec.installation import version_text

        click.echo(version_text())
        ctx.exit()


@click.command(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "credspec new WebApp01 --path ./www.json",
        "credspec lint www.json",
        "credspec check www.json",
        "credspec setup agent docker",
        'eval "$(_CREDSPEC_COMPLETE=bash_source credspec)"  # completion',
    ),
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show version, commit and extras, and exit.",
)
def credspec() -> None:
    """Group Managed Service Accounts for Linux containers."""


def main() -> None:
    """Run ``credspec`` and exit with the status of the class of failure."""
    run_command(credspec, prog_name="credspec")


def replace_what_cannot_be_shown() -> None:
    """Write what a terminal's encoding does not have as ``?`` instead of ending in a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def missing_package(error: ModuleNotFoundError) -> str:
    """Return the line for a package that this command needs and that is not installed.

    Raises:
        ModuleNotFoundError: the module is one of credspec, which is a bug.
    """
    from credspec.installation import how_to_install

    name = error.name or ""
    # Distribution packages have it apart: what makes domain controllers is not for every host.
    is_lab = name.startswith("credspec.lab")
    top = name if is_lab else name.partition(".")[0]
    if top in {"", "credspec"}:
        raise error
    extra = "lab" if is_lab else _EXTRAS.get(top, "host")
    return (
        f"this command needs the Python package {top}, which is not installed; "
        f"{how_to_install(extra)} [package-missing]"
    )


def _colour() -> bool | None:
    """Return False where colours are unwanted (no-color.org), None to let the terminal decide."""
    unwanted = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return False if unwanted else None


def run_command(command: click.Command, *, prog_name: str, args: list[str] | None = None) -> None:
    """Run a click command and exit; errors are lines on standard error, without traceback."""
    replace_what_cannot_be_shown()
    try:
        status = command.main(
            args=args, prog_name=prog_name, standalone_mode=False, color=_colour()
        )
    except CredspecError as error:
        for line in str(error).splitlines():
            click.echo(f"{prog_name}: {line}", err=True)
        sys.exit(error.exit_status)
    except ModuleNotFoundError as error:
        click.echo(f"{prog_name}: {missing_package(error)}", err=True)
        sys.exit(ExitStatus.OTHER)
    except click.ClickException as error:
        error.show()
        sys.exit(ExitStatus.USAGE)
    except (click.Abort, KeyboardInterrupt):
        click.echo("", err=True)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitStatus.OTHER)
    sys.exit(status if isinstance(status, int) else ExitStatus.OK)
