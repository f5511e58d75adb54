"""``credspec agent``: the host agent in the foreground, as a service runs it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING

import click

from credspec.cli.help_text import examples
from credspec.errors import CredspecError, NotPermittedError, UsageError

if TYPE_CHECKING:
    from credspec.agent.leases.leases import Leases
    from credspec.config.host import Config

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
def agent(config_path: Path | None, grpc_socket: Path | None, *, prepare: bool) -> None:
    """Run the host agent until SIGTERM or Ctrl-C; SIGHUP reloads its configuration.

    It reads managed passwords with the host's own identity, obtains tickets and keeps them fresh in
    the containers that hold leases. A restart loses none of them.
    """
    if prepare:
        _prepare(config_path)
        return
    from credspec.agent.service_sockets import refuse_waiting_callers

    try:
        _run(config_path, grpc_socket)
    except CredspecError as error:
        refuse_waiting_callers(error)
        raise
    # Threads may still wait for a domain controller; nobody wants what they bring.
    os._exit(0)


def _run(config_path: Path | None, grpc_socket: Path | None) -> None:
    from credspec.service.process_safety import overwrite_freed_memory

    # This may start the program over, so what takes long to load comes after it.
    overwrite_freed_memory()
    from credspec.config.host import load_config

    config = load_config(config_path)
    from credspec.agent.daemon import prepare_process, serve
    from credspec.agent.loop_watch import watched_loop
    from credspec.service.events import Event, configure_logging, emit

    other_doors = [] if grpc_socket is None else [_compatible_service(grpc_socket, config)]
    try:
        is_locked = prepare_process(config)
    except PermissionError as error:
        raise NotPermittedError.of(
            "agent-needs-root",
            error.strerror or "not permitted",
            where=str(error.filename or config.run_directory),
            remedy="run the agent as root, or as a service: credspec setup agent",
        ) from None
    configure_logging(config.log_format)
    if not is_locked:
        emit(Event.PROCESS_NOT_HARDENED, what="memory may be swapped: RLIMIT_MEMLOCK is limited")
    with asyncio.Runner(loop_factory=watched_loop) as runner:
        runner.run(serve(config, *other_doors, load=lambda: load_config(config_path)))


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


def _compatible_service(
    path: Path, config: Config
) -> Callable[[Leases], AbstractAsyncContextManager[None]]:
    from credspec.agent.doors.credentials_fetcher import server

    server.check(config)
    return lambda leases: server.serving(path.absolute(), config, leases)
