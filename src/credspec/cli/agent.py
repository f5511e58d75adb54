"""``credspec agent``: the host agent in the foreground, as a service runs it."""

from __future__ import annotations

import os
from pathlib import Path
from shutil import which

import click

from credspec.cli.agent_process import compatible_service, run
from credspec.cli.help_text import examples
from credspec.errors import UsageError

_USERS = Path("/run/user")
_DIRECTORIES = (
    (_USERS, 0o755),
    (_USERS / "0", 0o700),
    (Path("/run/containerd"), 0o711),
    (Path("/run/containerd/io.containerd.runtime.v2.task"), 0o711),
)


@click.command(
    epilog=examples("credspec agent --config /etc/credspec/config.toml"),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Configuration file.  [default: $CREDSPEC_CONFIG or /etc/credspec/config.toml]",
)
@click.option(
    "--grpc-compat",
    "grpc_socket",
    metavar="SOCKET",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Serve credentials-fetcher's interface too, on this socket.",
)
@click.option(
    "--prepare",
    is_flag=True,
    help="Only look up the users of the configuration, for an agent in a sandbox.",
)
@click.option("--check", is_flag=True, help="Only validate the configuration.")
def agent(
    config_path: Path | None, grpc_socket: Path | None, *, prepare: bool, check: bool
) -> None:
    """Run the host agent until SIGTERM or Ctrl-C; SIGHUP reloads its configuration.

    It reads managed passwords with the host's own identity, obtains tickets and keeps them fresh in
    the containers that hold leases. A restart loses none of them.
    """
    if prepare:
        _prepare(config_path)
        return
    if check:
        from credspec.config.host import load_config

        config = load_config(config_path)
        if grpc_socket is not None:
            compatible_service(grpc_socket, config)
        click.echo("The configuration is valid.")
        return
    run(config_path, grpc_socket)


def _prepare(config_path: Path | None) -> None:
    """Do what the agent's unit forbids the agent itself; the unit calls it outside the sandbox."""
    from credspec.config.host import users_in_configuration
    from credspec.config.host_users import USERS_VARIABLE, write_users
    from credspec.service.process_safety import enter_mounts_of_host

    target = os.environ.get(USERS_VARIABLE)
    if not target:
        raise UsageError.of(
            "users-file-unnamed",
            f"${USERS_VARIABLE} is not set",
            where="--prepare",
            expected="the path of the file to write, as in credspec-agent.service",
        )
    # systemd hides from this call, too, what the unit replaces.
    enter_mounts_of_host()
    # What the unit shows or hides must be there, or it does neither. logind makes the first two at
    # the first logon, containerd the others when it starts, which is after the agent.
    for path, mode in _DIRECTORIES:
        is_wanted = path.is_relative_to(_USERS) or which("containerd")
        if is_wanted and not path.exists():
            path.mkdir()
            path.chmod(mode)
    write_users(users_in_configuration(config_path), Path(target))
