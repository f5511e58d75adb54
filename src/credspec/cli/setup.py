"""``credspec setup``: registers credspec with systemd and container engines; undoes it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from credspec.cli.help_text import examples
from credspec.cli.setup_report import left_in_place, planned, report
from credspec.cli.setup_together import (
    NEXT_OF_CONTAINERD,
    NEXT_OF_CONTAINERD_UNDO,
    NEXT_OF_DOCKER,
    NEXT_OF_DOCKER_UNDO,
    NEXT_OF_PODMAN,
    SetupGroup,
    agent_plan,
    wait_seconds,
)

if TYPE_CHECKING:
    from credspec.errors import Problem


class _AbsolutePath(click.Path):
    """A path that programs in other directories use, and therefore absolute."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return Path(os.fsdecode(super().convert(value, param, ctx))).absolute()


_PATH = _AbsolutePath(path_type=Path)
_WAIT = click.option(
    "--wait",
    type=click.FloatRange(0, 3600),
    metavar="SECONDS",
    help="How long a start waits for agent and domain.  [wait_seconds of the configuration]",
)


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


@setup.command(epilog=examples("credspec setup docker --dry-run"))
@click.option("--undo", is_flag=True, help="Undo what setup did.")
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@click.option("--daemon-config", type=_PATH, help="dockerd's file.  [/etc/docker/daemon.json]")
@click.option("--launcher-directory", type=_PATH, help="[default: /usr/local/libexec/credspec]")
@click.option("--gateway-socket", type=_PATH, help="[default: docker.sock in the run directory]")
@click.option("--context", default="credspec", show_default=True, help="Name of the context.")
@click.option("--no-context", is_flag=True, help="Do not create a docker context.")
@click.option("--runtime-name", default="credspec", show_default=True, help="Name for dockerd.")
@click.option("--set-as-default", is_flag=True, help="Make it the runtime of all containers.")
@click.option(
    "--host-python",
    type=_PATH,
    help="For a set-up in a container: the host's Python (3.11 or newer), to run a copy.",
)
@click.option("--force", is_flag=True, help="Replace a runtime or context of the same name.")
@_WAIT
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def docker(
    *,
    undo: bool,
    dry_run: bool,
    daemon_config: Path | None,
    launcher_directory: Path | None,
    gateway_socket: Path | None,
    context: str,
    no_context: bool,
    runtime_name: str,
    set_as_default: bool,
    host_python: Path | None,
    force: bool,
    wait: float | None,
    output: str,
) -> None:
    """Register the runtime with dockerd, and the gateway as a docker context.

    What daemon.json holds is kept. Run again, it changes nothing.
    """
    from credspec.config.host import load_config
    from credspec.contract.start_wait import DEFAULT_SECONDS
    from credspec.setup.docker import DAEMON_CONFIG, DockerSetup
    from credspec.setup.launcher import LAUNCHER_DIRECTORY

    config = load_config()
    plan = DockerSetup(
        run_directory=config.run_directory,
        gateway_socket=gateway_socket or config.gateway_socket,
        daemon_config=daemon_config or DAEMON_CONFIG,
        launcher_directory=launcher_directory or LAUNCHER_DIRECTORY,
        context=None if no_context else context,
        runtime_name=runtime_name,
        set_as_default=set_as_default,
        force=force,
        wait_seconds=wait_seconds(config, DEFAULT_SECONDS, wait),
        host_python=host_python,
    )
    warnings = _lease_warnings(undo=undo)
    changes = plan.undo(dry_run=dry_run) if undo else plan.apply(dry_run=dry_run)
    following = NEXT_OF_DOCKER_UNDO
    if not undo:
        words = {"socket": plan.gateway_socket, "specs": config.spec_directory}
        following = _agent_step(gateway=True)
        if any("daemon.json" in change or str(plan.daemon_config) in change for change in changes):
            following += "systemctl reload docker; then "
        following += NEXT_OF_DOCKER.format_map(words).replace("credspec", context, 1)
    report(changes, following, dry_run=dry_run, output=output, warnings=warnings)


@setup.command(epilog=examples("credspec setup containerd --dry-run"))
@click.option("--undo", is_flag=True, help="Undo what setup did.")
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@click.option("--config", type=_PATH, help="[default: /etc/containerd/config.toml]")
@click.option("--launcher-directory", type=_PATH, help="[default: /usr/local/libexec/credspec]")
@click.option("--handler", default="credspec", show_default=True, help="Name for RuntimeClass.")
@_WAIT
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def containerd(
    *,
    undo: bool,
    dry_run: bool,
    config: Path | None,
    launcher_directory: Path | None,
    handler: str,
    wait: float | None,
    output: str,
) -> None:
    """Register the runtime with containerd, as a handler for Kubernetes.

    What config.toml holds is kept. Run again, it changes nothing. `ctr run` only needs the
    launcher: --runc-binary.
    """
    from credspec.config.host import load_config
    from credspec.contract.start_wait import CONTAINERD_SECONDS
    from credspec.setup.containerd import CONTAINERD_CONFIG, ContainerdSetup
    from credspec.setup.launcher import LAUNCHER_DIRECTORY

    ours = load_config()
    plan = ContainerdSetup(
        run_directory=ours.run_directory,
        config=config or CONTAINERD_CONFIG,
        wait_seconds=wait_seconds(ours, CONTAINERD_SECONDS, wait),
        launcher_directory=launcher_directory or LAUNCHER_DIRECTORY,
        handler=handler,
    )
    warnings = _lease_warnings(undo=undo)
    changes = plan.undo(dry_run=dry_run) if undo else plan.apply(dry_run=dry_run)
    following = NEXT_OF_CONTAINERD_UNDO
    if not undo:
        following = _agent_step(gateway=False) + NEXT_OF_CONTAINERD.format(handler)
    report(changes, following, dry_run=dry_run, output=output, warnings=warnings)


@setup.command(epilog=examples("credspec setup podman --dry-run"))
@click.option("--undo", is_flag=True, help="Undo what setup did.")
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@click.option("--config-directory", type=_PATH, help="[default: /etc/containers/containers.conf.d]")
@click.option("--hooks-directory", type=_PATH, help="[default: /usr/share/containers/oci/hooks.d]")
@click.option("--launcher-directory", type=_PATH, help="[default: /usr/local/libexec/credspec]")
@click.option("--no-hooks", is_flag=True, help="Only the runtime: podman --runtime credspec.")
@_WAIT
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def podman(
    *,
    undo: bool,
    dry_run: bool,
    config_directory: Path | None,
    hooks_directory: Path | None,
    launcher_directory: Path | None,
    no_hooks: bool,
    wait: float | None,
    output: str,
) -> None:
    """Register the runtime and the hooks with Podman. Run again, it changes nothing."""
    from credspec.config.host import load_config
    from credspec.contract.start_wait import DEFAULT_SECONDS
    from credspec.setup.launcher import LAUNCHER_DIRECTORY
    from credspec.setup.podman import CONFIG_DIRECTORY, HOOKS_DIRECTORY, PodmanSetup

    config = load_config()
    plan = PodmanSetup(
        run_directory=config.run_directory,
        wait_seconds=wait_seconds(config, DEFAULT_SECONDS, wait),
        config_directory=config_directory or CONFIG_DIRECTORY,
        hooks_directory=hooks_directory or HOOKS_DIRECTORY,
        launcher_directory=launcher_directory or LAUNCHER_DIRECTORY,
        hooks=not no_hooks,
    )
    warnings = _lease_warnings(undo=undo)
    changes = plan.undo(dry_run=dry_run) if undo else plan.apply(dry_run=dry_run)
    following = ""
    if not undo:
        following = _agent_step(gateway=False)
        following += NEXT_OF_PODMAN.format_map({"specs": config.spec_directory})
    report(changes, following, dry_run=dry_run, output=output, warnings=warnings)


def _lease_warnings(*, undo: bool) -> tuple[Problem, ...]:
    from credspec.config.host import load_config
    from credspec.setup.agent import lease_warnings

    return lease_warnings(load_config()) if undo else ()


def _agent_step(*, gateway: bool) -> str:
    """Return what is to be done for the agent, empty if its service is installed."""
    from credspec.setup.systemd import AGENT_UNIT, GATEWAY_UNIT, unit_is_there

    if unit_is_there(AGENT_UNIT) and (not gateway or unit_is_there(GATEWAY_UNIT)):
        return ""
    command = "credspec setup agent --docker-gateway" if gateway else "credspec setup agent"
    return f"{command} (or run them under your own service manager); "
