"""``credspec setup``: registers credspec with systemd and container engines; undoes it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from credspec.cli.help_text import examples
from credspec.cli.setup_engine_command import engine_command, fields_of
from credspec.cli.setup_report import left_in_place, planned, report
from credspec.cli.setup_together import SetupGroup, agent_plan
from credspec.setup.engines import ENGINES

if TYPE_CHECKING:
    from credspec.setup.engine import EngineSetup


@click.group(
    cls=SetupGroup,
    epilog=examples(
        "credspec setup agent docker",
        "credspec setup agent docker --undo",
        "credspec setup agent --dry-run",
        "credspec setup docker --dry-run",
        "credspec setup podman --dry-run",
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
)
def setup() -> None:
    """Set up this host: the agent as a service, container engines, or several at once.

    `credspec setup agent docker` does all that Docker takes: the agent and the gateway as services,
    the spec directory, the runtime and a docker context. It asks nothing, and --undo undoes it.
    """


@setup.command(epilog=examples("credspec setup agent --dry-run"))
@click.option("--undo", is_flag=True, help="Undo what setup did.")
@click.option("--dry-run", is_flag=True, help="Print the units, and change nothing.")
@click.option("--docker-gateway", is_flag=True, help="Install the Docker gateway's unit too.")
@click.option("--grpc-compat", is_flag=True, help="Serve credentials-fetcher's interface too.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def agent(
    *, undo: bool, dry_run: bool, docker_gateway: bool, grpc_compat: bool, output: str
) -> None:
    """Run the agent as a hardened systemd service, now and after every boot.

    Makes the spec directory, too. Run again, it changes nothing. Leases and their tickets stay
    through restarts.
    """
    from credspec.setup.agent import lease_warnings

    plan, units = agent_plan(docker_gateway=docker_gateway, grpc_compat=grpc_compat, undo=undo)
    if undo:
        warnings = lease_warnings(plan.config)
        changes = plan.undo(dry_run=dry_run)
        following = left_in_place(plan.left()) if changes else ""
        report(changes, following, dry_run=dry_run, output=output, warnings=warnings)
        return
    changes = plan.apply(dry_run=dry_run)
    if dry_run and output == "text":
        for unit in units:
            click.echo(f"# {plan.systemd.unit_directory / unit}\n{plan.systemd.text(unit)}")
        for change in changes:
            click.echo(f"dry run: would {planned(change)}", err=True)
    if not dry_run or output == "json":
        report(changes, dry_run=dry_run, output=output)


def _set_up(
    engine: type[EngineSetup],
    *,
    undo: bool,
    dry_run: bool,
    wait: float | None,
    output: str,
    **given: Any,
) -> None:
    from credspec.config.host import load_config
    from credspec.setup.agent import lease_warnings

    config = load_config()
    plan = engine.from_config(config, fields_of(engine, given), wait)
    warnings = lease_warnings(config) if undo else ()
    changes = plan.undo(dry_run=dry_run) if undo else plan.apply(dry_run=dry_run)
    if undo:
        following = plan.next_step_of_undo()
    else:
        following = _agent_step(gateway=engine.needs_gateway)
        reload = plan.reload_command(changes)
        following += f"{reload}; then " if reload else ""
        following += plan.next_step(config)
    report(changes, following, dry_run=dry_run, output=output, warnings=warnings)


def _agent_step(*, gateway: bool) -> str:
    """Return what is to be done for the agent, empty if its service is installed."""
    from credspec.setup.systemd import AGENT_UNIT, GATEWAY_UNIT, unit_is_there

    if unit_is_there(AGENT_UNIT) and (not gateway or unit_is_there(GATEWAY_UNIT)):
        return ""
    command = "credspec setup agent --docker-gateway" if gateway else "credspec setup agent"
    return f"{command} (or run them under your own service manager); "


for each in ENGINES.values():
    setup.add_command(engine_command(each, partial(_set_up, each)))
