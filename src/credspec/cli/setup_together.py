"""``credspec setup agent docker``: several parts of one host at once, nothing asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import click

from credspec.cli.help_text import examples
from credspec.cli.setup_report import left_in_place, report

if TYPE_CHECKING:
    from credspec.config.host import Config
    from credspec.setup.agent import AgentSetup

NEXT_OF_DOCKER: Final = (
    "docker context use credspec (each user of this host runs `credspec setup docker` once, which "
    "makes the context, or sets DOCKER_HOST=unix://{socket}); then docker run --security-opt "
    "credentialspec=file://NAME.json, with NAME.json in {specs}"
)
NEXT_OF_CONTAINERD: Final = "systemctl restart containerd, and a RuntimeClass with the handler {0}"
NEXT_OF_PODMAN: Final = (
    "podman run --annotation credspec.dev/spec=file://NAME.json --tmpfs /run/credspec IMAGE, with "
    "NAME.json in {specs}"
)
NEXT_OF_DOCKER_UNDO: Final = (
    "systemctl restart docker, since a reload keeps a runtime that has gone"
)
NEXT_OF_CONTAINERD_UNDO: Final = "systemctl restart containerd"


class Plan(Protocol):
    """A part of a host that can be set up and undone; each call returns what it changed."""

    def apply(self, *, dry_run: bool = False) -> list[str]:
        """Set it up."""

    def undo(self, *, dry_run: bool = False) -> list[str]:
        """Undo it."""


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
    from credspec.installation import program
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
        program=program(),
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

    plans: dict[str, Plan] = {}
    agent = None
    if "agent" in names:
        agent, _ = agent_plan(docker_gateway="docker" in names, grpc_compat=False, undo=undo)
        plans["agent"] = agent
    config = load_config() if agent is None else agent.config
    for name in names:
        if name != "agent":
            plans[name] = _ENGINES[name](config)
    changes: list[str] = []
    if undo:
        warnings = lease_warnings(config)
        for plan in reversed(plans.values()):
            changes += plan.undo(dry_run=dry_run)
        agent_left = [] if agent is None else agent.left()
        engines = _next_of_undo(plans) if any("/" in each for each in changes) else []
        following = "; ".join(filter(None, [*engines, left_in_place(agent_left)]))
        report(changes, following, dry_run=dry_run, output=output, warnings=warnings)
        return
    for plan in plans.values():  # all that may refuse, before the first change
        changes += plan.apply(dry_run=True)
    if not dry_run:
        changes = [line for plan in plans.values() for line in plan.apply()]
        changes += reload_if_registered(changes)
    report(changes, "; ".join(_next_of(plans, config)), dry_run=dry_run, output=output)


def reload_if_registered(changes: list[str]) -> list[str]:
    """Let dockerd know of a runtime that was registered; return what was done.

    Raises:
        CredspecError: `systemctl`.
    """
    from credspec.setup.systemd import reload_docker

    return reload_docker() if any(" in /etc/docker/" in change for change in changes) else []


def _next_of(plans: dict[str, Plan], config: Config) -> list[str]:
    words = {"socket": config.gateway_socket, "specs": config.spec_directory}
    texts = {
        "docker": NEXT_OF_DOCKER.format_map(words),
        "containerd": NEXT_OF_CONTAINERD.format("credspec"),
        "podman": NEXT_OF_PODMAN.format_map(words),
    }
    return [texts[name] for name in plans if name in texts]


def _next_of_undo(plans: dict[str, Plan]) -> list[str]:
    texts = {"docker": NEXT_OF_DOCKER_UNDO, "containerd": NEXT_OF_CONTAINERD_UNDO}
    return [texts[name] for name in plans if name in texts]


def wait_seconds(config: Config, default: float, option: float | None = None) -> float:
    """Return what an option says, else the configuration, else the engine's default."""
    return next(v for v in (option, config.wait_seconds, default) if v is not None)


def _docker(config: Config) -> Plan:
    from credspec.contract.start_wait import DEFAULT_SECONDS
    from credspec.setup.docker import DockerSetup

    return DockerSetup(
        run_directory=config.run_directory,
        gateway_socket=config.gateway_socket,
        wait_seconds=wait_seconds(config, DEFAULT_SECONDS),
    )


def _containerd(config: Config) -> Plan:
    from credspec.contract.start_wait import CONTAINERD_SECONDS
    from credspec.setup.containerd import ContainerdSetup

    return ContainerdSetup(
        run_directory=config.run_directory, wait_seconds=wait_seconds(config, CONTAINERD_SECONDS)
    )


def _podman(config: Config) -> Plan:
    from credspec.contract.start_wait import DEFAULT_SECONDS
    from credspec.setup.podman import PodmanSetup

    return PodmanSetup(
        run_directory=config.run_directory, wait_seconds=wait_seconds(config, DEFAULT_SECONDS)
    )


_ENGINES: Final[dict[str, Callable[[Config], Any]]] = {
    "docker": _docker,
    "containerd": _containerd,
    "podman": _podman,
}
