"""``credspec docker-gateway``: dockerd's API with credential specs understood."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import click

from credspec.cli.help_text import examples

_DOCKER_SOCKET = Path("/var/run/docker.sock")
_PATH = click.Path(path_type=Path)


class _SocketPath(click.Path):
    """A socket's path, also as docker writes it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str):
            value = value.removeprefix("unix://")
        return super().convert(value, param, ctx)


_SOCKET = _SocketPath(path_type=Path, resolve_path=False)


@click.command(
    "docker-gateway",
    epilog=examples("credspec docker-gateway --listen /run/credspec/docker.sock"),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--listen", type=_SOCKET, help="Socket to serve.  [default: in the run directory]")
@click.option(
    "--upstream",
    type=_SOCKET,
    help="dockerd's socket.  [default: $DOCKER_HOST or /var/run/docker.sock]",
)
@click.option("--spec-directory", type=_PATH, help="Where file:// is looked up.")
@click.option("--group", help="Group that may use the socket.  [default: as dockerd's socket]")
@click.option(
    "--runtime-name", default="credspec", show_default=True, help="As registered with dockerd."
)
@click.option("--verbose", is_flag=True, help="Say what is refused, and why.")
def docker_gateway(
    *,
    listen: Path | None,
    upstream: Path | None,
    spec_directory: Path | None,
    group: str | None,
    runtime_name: str,
    verbose: bool,
) -> None:
    """Run the Docker gateway, which adds --security-opt credentialspec= to the Docker API.

    It forwards everything else to dockerd unchanged. Use it with `docker context use credspec`,
    or with DOCKER_HOST.
    """
    from credspec.config.host import load_config
    from credspec.service.process_safety import (
        forbid_core_dumps,
        lock_memory,
        overwrite_freed_memory,
    )

    # Specs with host accounts in them pass through.
    overwrite_freed_memory()
    forbid_core_dumps()
    lock_memory()
    from credspec.gateway.server import run, say_on_standard_error
    from credspec.service.notification import failure_in_status

    with failure_in_status():
        config = load_config()
        own = listen or config.gateway_socket
        if upstream == own:
            raise click.BadParameter(
                "the gateway cannot be its own daemon", param_hint="--upstream"
            )
        asyncio.run(
            run(
                own,
                upstream or _docker_host(own) or _DOCKER_SOCKET,
                spec_directory or config.spec_directory,
                group=group,
                runtime=runtime_name,
                say=say_on_standard_error if verbose else _quiet,
            )
        )


def _quiet(line: str) -> None:
    del line


def _docker_host(own: Path) -> Path | None:
    """Return the socket that DOCKER_HOST names; None if it names none, or the gateway itself."""
    scheme, _, path = os.environ.get("DOCKER_HOST", "").partition("://")
    return Path(path) if scheme == "unix" and path and Path(path) != own else None
