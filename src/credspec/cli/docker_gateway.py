"""``credspec docker-gateway``: dockerd's API with credential specs understood."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import click

_DOCKER_SOCKET = Path("/var/run/docker.sock")
_PATH = click.Path(path_type=Path)


@click.command(
    "docker-gateway",
    epilog="Example: credspec docker-gateway --listen /run/credspec/docker.sock",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--listen", type=_PATH, help="Socket to serve.  [default: in the run directory]")
@click.option("--upstream", type=_PATH, help="dockerd's socket.  [default: /var/run/docker.sock]")
@click.option("--spec-directory", type=_PATH, help="Where file:// is looked up.")
@click.option("--group", help="Group that may use the socket.  [default: as dockerd's socket]")
@click.option("--verbose", is_flag=True, help="Say what is refused, and why.")
def docker_gateway(
    listen: Path | None,
    upstream: Path | None,
    spec_directory: Path | None,
    group: str | None,
    verbose: bool,
) -> None:
    """Serve the Docker API with --security-opt credentialspec= understood.

    Everything else goes to dockerd untouched. Use it with `docker context use credspec`, or with
    DOCKER_HOST.
    """
    from credspec.agent.config import load_config
    from credspec.runtimes.docker_gateway.server import run, say_on_standard_error

    config = load_config()
    asyncio.run(
        run(
            listen or config.gateway_socket,
            upstream or _DOCKER_SOCKET,
            spec_directory or config.spec_directory,
            group=None if group is None else _group_number(group),
            say=say_on_standard_error if verbose else _quiet,
        )
    )


def _group_number(name: str) -> int:
    import grp

    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise click.BadParameter(f"there is no group {name!r}", param_hint="--group") from None


def _quiet(line: str) -> None:
    del line


def docker_host() -> Path | None:
    """Return the socket that DOCKER_HOST names, None if it names none."""
    scheme, _, path = os.environ.get("DOCKER_HOST", "").partition("://")
    return Path(path) if scheme == "unix" and path else None
