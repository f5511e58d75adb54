"""``credspec agent``: the host agent in the foreground, as a service runs it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from credspec.cli.help_text import examples
from credspec.errors import NotPermittedError

if TYPE_CHECKING:
    from credspec.agent.config import Config
    from credspec.agent.leases import Leases


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
def agent(config_path: Path | None, grpc_socket: Path | None) -> None:
    """Run the host agent until SIGTERM or Ctrl-C; SIGHUP lets it read its policy again.

    It reads managed passwords with the host's own identity, gets tickets and keeps them fresh in
    the containers that hold leases. A restart loses none of them.
    """
    from credspec.agent.config import load_config

    config = load_config(config_path)
    from credspec.agent.daemon import prepare_process, serve
    from credspec.agent.events import Event, configure_logging, emit
    from credspec.agent.loop_watch import watched_loop

    beside = [] if grpc_socket is None else [_compatible_service(grpc_socket, config)]
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
        runner.run(serve(config, *beside, load=lambda: load_config(config_path)))
    # Threads may still wait for a domain controller; nobody wants what they bring.
    os._exit(0)


def _compatible_service(
    path: Path, config: Config
) -> Callable[[Leases], AbstractAsyncContextManager[None]]:
    from credspec.runtimes.credentials_fetcher import server

    server.check(config)
    return lambda leases: server.serving(path.absolute(), config, leases)
