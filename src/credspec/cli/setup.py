"""``credspec setup``: registers credspec with systemd and container engines; takes it back."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from credspec.cli.help_text import examples

_PATH = click.Path(path_type=Path)


@click.group(
    epilog=examples(
        "credspec setup agent --dry-run",
        "credspec setup docker --dry-run",
        "credspec setup podman --dry-run",
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
)
def setup() -> None:
    """Register credspec with systemd and container engines; --undo takes it back."""


@setup.command(epilog=examples("credspec setup agent --dry-run"))
@click.option("--undo", is_flag=True, help="Take back what setup did.")
@click.option("--dry-run", is_flag=True, help="Print the units, and change nothing.")
@click.option("--docker-gateway", is_flag=True, help="Install the Docker gateway's unit too.")
@click.option("--grpc-compat", is_flag=True, help="Let the agent stand in for credentials-fetcher.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def agent(
    *, undo: bool, dry_run: bool, docker_gateway: bool, grpc_compat: bool, output: str
) -> None:
    """Run the agent as a hardened systemd service, now and after every boot.

    Run again, it changes nothing. Leases and their tickets stay through restarts.
    """
    from credspec.agent.systemd_setup import (
        AGENT_SOCKET,
        AGENT_UNIT,
        FETCHER_UNITS,
        GATEWAY_UNIT,
        SystemdSetup,
    )
    from credspec.agent.unit_paths import paths_of_configuration, service_environment
    from credspec.installation import program

    units: tuple[str, ...] = (AGENT_UNIT, AGENT_SOCKET)
    units += (GATEWAY_UNIT,) if docker_gateway or undo else ()
    units += FETCHER_UNITS if grpc_compat or undo else ()
    needed, has_users = frozenset[Path](), False
    if not undo and units != (AGENT_UNIT, AGENT_SOCKET):
        # These units hide more of the host, so it is to be known what they read of it.
        needed, has_users = paths_of_configuration(
            dict(os.environ)
            | service_environment(AGENT_UNIT)
            | (service_environment(GATEWAY_UNIT) if docker_gateway else {})
        )
    plan = SystemdSetup(program=program(), units=units, needed=needed, has_users=has_users)
    changes = plan.undo(dry_run=dry_run) if undo else plan.apply(dry_run=dry_run)
    if output == "json":
        click.echo(json.dumps({"changes": changes, "dry_run": dry_run}))
        return
    if dry_run and not undo:
        for unit in units:
            click.echo(f"# {plan.unit_directory / unit}\n{plan.text(unit)}")
    for change in changes:
        click.echo(f"dry run, not done: {change}" if dry_run else change, err=dry_run)
    if not changes:
        click.echo("nothing to change")


@setup.command(epilog=examples("credspec setup docker --dry-run"))
@click.option("--undo", is_flag=True, help="Take back what setup did.")
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@click.option("--daemon-config", type=_PATH, help="dockerd's file.  [/etc/docker/daemon.json]")
@click.option("--launcher-directory", type=_PATH, help="[default: /usr/local/libexec/credspec]")
@click.option("--gateway-socket", type=_PATH, help="[default: docker.sock in the run directory]")
@click.option("--context", default="credspec", show_default=True, help="Name of the context.")
@click.option("--no-context", is_flag=True, help="Leave the docker client alone.")
@click.option("--runtime-name", default="credspec", show_default=True, help="Name for dockerd.")
@click.option("--set-as-default", is_flag=True, help="Make it the runtime of all containers.")
@click.option("--force", is_flag=True, help="Replace a runtime or context of the same name.")
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
    force: bool,
    output: str,
) -> None:
    """Register the runtime with dockerd, and the gateway as a docker context.

    What daemon.json holds is kept. Run again, it changes nothing.
    """
    from credspec.agent.config import load_config
    from credspec.runtimes.docker_setup import DAEMON_CONFIG, DockerSetup
    from credspec.runtimes.shim_launcher import LAUNCHER_DIRECTORY

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
    )
    changes = plan.undo(dry_run=dry_run) if undo else plan.apply(dry_run=dry_run)
    following = _next_step(undo=undo, context=plan.context) if changes else ""
    _tell(changes, following, dry_run=dry_run, output=output)


@setup.command(epilog=examples("credspec setup containerd --dry-run"))
@click.option("--undo", is_flag=True, help="Take back what setup did.")
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@click.option("--config", type=_PATH, help="[default: /etc/containerd/config.toml]")
@click.option("--launcher-directory", type=_PATH, help="[default: /usr/local/libexec/credspec]")
@click.option("--handler", default="credspec", show_default=True, help="Name for RuntimeClass.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def containerd(
    *,
    undo: bool,
    dry_run: bool,
    config: Path | None,
    launcher_directory: Path | None,
    handler: str,
    output: str,
) -> None:
    """Register the runtime with containerd, as a handler for Kubernetes.

    What config.toml holds is kept. Run again, it changes nothing. `ctr run` needs the launcher
    alone: --runc-binary.
    """
    from credspec.agent.config import load_config
    from credspec.runtimes.containerd_setup import CONTAINERD_CONFIG, ContainerdSetup
    from credspec.runtimes.shim_launcher import LAUNCHER_DIRECTORY

    plan = ContainerdSetup(
        run_directory=load_config().run_directory,
        config=config or CONTAINERD_CONFIG,
        launcher_directory=launcher_directory or LAUNCHER_DIRECTORY,
        handler=handler,
    )
    changes = plan.undo(dry_run=dry_run) if undo else plan.apply(dry_run=dry_run)
    following = "systemctl restart containerd" if changes else ""
    if following and not undo:
        following += f", and a RuntimeClass with the handler {handler}"
    _tell(changes, following, dry_run=dry_run, output=output)


@setup.command(epilog=examples("credspec setup podman --dry-run"))
@click.option("--undo", is_flag=True, help="Take back what setup did.")
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@click.option("--config-directory", type=_PATH, help="[default: /etc/containers/containers.conf.d]")
@click.option("--hooks-directory", type=_PATH, help="[default: /usr/share/containers/oci/hooks.d]")
@click.option("--launcher-directory", type=_PATH, help="[default: /usr/local/libexec/credspec]")
@click.option("--no-hooks", is_flag=True, help="Only the runtime: podman --runtime credspec.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def podman(
    *,
    undo: bool,
    dry_run: bool,
    config_directory: Path | None,
    hooks_directory: Path | None,
    launcher_directory: Path | None,
    no_hooks: bool,
    output: str,
) -> None:
    """Register the runtime and the hooks with Podman. Run again, it changes nothing."""
    from credspec.agent.config import load_config
    from credspec.runtimes.podman_setup import CONFIG_DIRECTORY, HOOKS_DIRECTORY, PodmanSetup
    from credspec.runtimes.shim_launcher import LAUNCHER_DIRECTORY

    plan = PodmanSetup(
        run_directory=load_config().run_directory,
        config_directory=config_directory or CONFIG_DIRECTORY,
        hooks_directory=hooks_directory or HOOKS_DIRECTORY,
        launcher_directory=launcher_directory or LAUNCHER_DIRECTORY,
        hooks=not no_hooks,
    )
    changes = plan.undo(dry_run=dry_run) if undo else plan.apply(dry_run=dry_run)
    following = ""
    if changes and not undo:
        spec = "--annotation credspec.dev/spec=file://www.json --tmpfs /run/credspec"
        following = f"run `credspec agent`; then podman run {spec} IMAGE"
    _tell(changes, following, dry_run=dry_run, output=output)


def _tell(changes: list[str], following: str, *, dry_run: bool, output: str) -> None:
    if output == "json":
        click.echo(json.dumps({"changes": changes, "dry_run": dry_run, "next": following}))
        return
    for change in changes:
        click.echo(f"dry run, not done: {change}" if dry_run else change)
    if not changes:
        click.echo("nothing to change")
    elif following and not dry_run:
        click.echo(f"Next: {following}", err=True)


def _next_step(*, undo: bool, context: str | None) -> str:
    if undo:
        return "systemctl restart docker, since a reload keeps a runtime that has gone"
    step = "systemctl reload docker, and run `credspec agent` and `credspec docker-gateway`"
    return f"{step}; then docker context use {context}" if context else step
