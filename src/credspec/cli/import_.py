"""``credspec import``: takes over what other programs have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from credspec.cli.help_text import examples
from credspec.errors import ExitStatus

if TYPE_CHECKING:
    from credspec.errors import Problem

_PATH = click.Path(path_type=Path)


@click.group(
    "import",
    epilog=examples("credspec import credentials-fetcher --dry-run"),
    context_settings={"help_option_names": ["-h", "--help"]},
)
def import_() -> None:
    """Migrate from other programs."""


@import_.command(
    "credentials-fetcher",
    epilog=examples(
        "credspec import credentials-fetcher --dry-run",
        "credspec import credentials-fetcher --dry-run --output json",
    ),
)
@click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
@click.option("--krbdir", type=_PATH, help="[default: /var/credentials-fetcher/krbdir]")
@click.option("--ecs-config", type=_PATH, help="[default: /etc/ecs/ecs.config]")
@click.option("--fetcher-config", type=_PATH, help="[default: /etc/credentials-fetcher.conf]")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def credentials_fetcher(
    *,
    dry_run: bool,
    krbdir: Path | None,
    ecs_config: Path | None,
    fetcher_config: Path | None,
    output: str,
) -> int:
    """Make specs of the accounts in credentials-fetcher's metadata, and read its configuration.

    Specs go to the spec directory; those that are there stay as they are. Lines for
    /etc/credspec/config.toml are printed. Nothing of credentials-fetcher is changed. Exit status:
    0 if all was taken over or needs no counterpart, else 1.
    """
    from credspec.agent.config import load_config
    from credspec.runtimes.credentials_fetcher import migration
    from credspec.spec.spec_directory import SpecDirectory

    config = load_config()
    sources = migration.Sources(
        lease_tree=krbdir or migration.LEASE_TREE,
        ecs_config=ecs_config or migration.ECS_CONFIG,
        fetcher_config=fetcher_config or migration.FETCHER_CONFIG,
    )
    found = migration.read_installation(sources)
    found.configuration += migration.policy_lines(found)
    directory = SpecDirectory(config.spec_directory)
    written = [] if dry_run else migration.write_specs(found, directory)
    status = ExitStatus.OTHER if found.refused else ExitStatus.OK
    if output == "json":
        document = found.to_json() | {"written": written, "dry_run": dry_run}
        click.echo(json.dumps(document, indent=2))
        return status
    for name in sorted(found.specs):
        done = "would write" if dry_run else "wrote" if name in written else "is there:"
        click.echo(f"{done} {directory.path / name}")
    if found.configuration:
        click.echo("for the configuration:")
        for line in found.configuration:
            click.echo(f"    {line}")
    _tell("not needed", found.notes)
    _tell("not taken over", found.refused)
    if not (found.specs or found.notes or found.refused):
        click.echo("there is nothing to take over")
    return status


def _tell(what: str, problems: list[Problem]) -> None:
    for problem in problems:
        click.echo(f"{what}: {problem.text()} [{problem.code}]")
