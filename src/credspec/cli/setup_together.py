"""``credspec setup agent docker``: several parts of one host at once, nothing asked."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from credspec.cli.help_text import examples
from credspec.cli.setup_report import left_in_place, report
from credspec.setup.engine_files import FileChange
from credspec.setup.engines import ENGINES

if TYPE_CHECKING:
    from credspec.setup.agent import AgentSetup
    from credspec.setup.engine import EngineSetup


class SetupGroup(click.Group):
    """A group of commands of which several can be named in one go, with the options of all."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command; for several names, one that does the work of all of them."""
        names: list[str] = []
        for argument in args:
            if argument not in self.commands:
                break
            names.append(argument)
        rest = args[len(names) :]
        if names and rest and not rest[0].startswith("-"):
            raise click.NoSuchCommand(rest[0], possibilities=self.commands, ctx=ctx)
        if len(names) < 2:  # noqa: PLR2004
            return super().resolve_command(ctx, args)
        return " ".join(names), _together(tuple(dict.fromkeys(names))), rest


def agent_plan(
    *, docker_gateway: bool, grpc_compat: bool, undo: bool
) -> tuple[AgentSetup, tuple[str, ...]]:
    """Return the plan for the agent's services, and their units.

    Raises:
        UsageError: as `load_config`.
    """
    from credspec.config.host import CONFIG_VARIABLE, Config, load_config
    from credspec.errors import UsageError
    from credspec.setup.agent import AgentSetup
    from credspec.setup.systemd import (
        AGENT_SOCKET,
        AGENT_UNIT,
        FETCHER_UNITS,
        GATEWAY_UNIT,
        SystemdSetup,
    )
    from credspec.setup.unit_paths import paths_of_configuration, service_environment

    units: tuple[str, ...] = (AGENT_UNIT, AGENT_SOCKET)
    units += (GATEWAY_UNIT,) if docker_gateway or undo else ()
    units += FETCHER_UNITS if grpc_compat or undo else ()
    environment = dict(os.environ) | service_environment(AGENT_UNIT)
    named = environment.get(CONFIG_VARIABLE)
    try:
        config = load_config(Path(named) if named else None)
    except UsageError:
        if not undo:  # a configuration that the agent would refuse, too
            raise
        config = Config()
    needed, has_users = frozenset[Path](), False
    if not undo and units != (AGENT_UNIT, AGENT_SOCKET):
        # These units hide more of the host, so it is to be known what they read of it.
        needed, has_users = paths_of_configuration(
            environment | (service_environment(GATEWAY_UNIT) if docker_gateway else {})
        )
    systemd = SystemdSetup(
        program=Path(sys.executable).with_name("credspec"),
        units=units,
        needed=needed,
        has_users=has_users,
    )
    return AgentSetup(systemd=systemd, config=config), units


def _together(names: tuple[str, ...]) -> click.Command:
    shown = " ".join(names)
    return click.Command(
        shown,
        callback=partial(_run, names),
        params=[
            click.Option(["--undo"], is_flag=True, help="Undo all of it, engines first."),
            click.Option(["--dry-run"], is_flag=True, help="Say what would change only."),
            click.Option(
                ["--output"], type=click.Choice(["text", "json"]), default="text", show_default=True
            ),
        ],
        help=f"Set up {' and '.join(names)} with one command that asks nothing; for other "
        "options, set them up one by one. Run again, it changes nothing.",
        epilog=examples(f"credspec setup {shown}", f"credspec setup {shown} --undo"),
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def _run(names: Sequence[str], *, undo: bool, dry_run: bool, output: str) -> None:
    from credspec.config.host import load_config
    from credspec.setup.agent import lease_warnings

    agent = None
    if "agent" in names:
        gateway = any(ENGINES[name].needs_gateway for name in names if name in ENGINES)
        agent, _ = agent_plan(docker_gateway=gateway, grpc_compat=False, undo=undo)
    config = load_config() if agent is None else agent.config
    engines = [ENGINES[name].from_config(config) for name in names if name in ENGINES]
    plans: list[AgentSetup | EngineSetup] = [*([] if agent is None else [agent]), *engines]
    changes: list[str] = []
    if undo:
        warnings = lease_warnings(config)
        following: list[str] = []
        for engine in reversed(engines):
            undone = engine.undo(dry_run=dry_run)
            changes += undone
            if any(isinstance(change, FileChange) for change in undone):  # not a context only
                following.insert(0, engine.next_step_of_undo())
        if agent is not None:
            changes += agent.undo(dry_run=dry_run)
        following.append(left_in_place([] if agent is None else agent.left()))
        text = "; ".join(filter(None, following))
        report(changes, text, dry_run=dry_run, output=output, warnings=warnings)
        return
    for plan in plans:  # all that may refuse, before the first change
        changes += plan.apply(dry_run=True)
    if not dry_run:
        changes = [line for plan in plans for line in plan.apply()]
        changes += [line for engine in engines for line in engine.reload(changes)]
    text = "; ".join(engine.next_step(config) for engine in engines)
    report(changes, text, dry_run=dry_run, output=output)
