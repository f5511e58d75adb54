"""``credspec agent``: the host agent in the foreground, as a service runs it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import click

from credspec.cli.help_text import examples


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
def agent(config_path: Path | None) -> None:
    """Run the host agent until SIGTERM or Ctrl-C.

    It reads managed passwords with the host's own identity, gets tickets and keeps them fresh in
    the containers that hold leases. A restart loses none of them.
    """
    from credspec.agent.config import load_config

    config = load_config(config_path)
    from credspec.agent.daemon import prepare_process, serve
    from credspec.agent.events import Event, configure_logging, emit

    is_locked = prepare_process(config)
    configure_logging(config.log_format)
    if not is_locked:
        emit(Event.PROCESS_NOT_HARDENED, what="memory may be swapped: RLIMIT_MEMLOCK is limited")
    asyncio.run(serve(config))
    # Threads may still wait for a domain controller; nobody wants what they bring.
    os._exit(0)
