"""``credspec lease``: what root does to the lease of a running container."""

from __future__ import annotations

import click

from credspec.cli.help_text import examples


@click.group(
    epilog=examples("credspec lease revoke 4f0c9e7a5b6d8c1e2f3a4b5c6d7e8f90"),
    context_settings={"help_option_names": ["-h", "--help"]},
)
def lease() -> None:
    """Act on the lease of a container that runs."""


@lease.command(
    epilog=examples("credspec lease revoke 4f0c9e7a5b6d8c1e2f3a4b5c6d7e8f90"),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("lease_id", metavar="ID")
def revoke(lease_id: str) -> None:
    """Cut the container of the lease ID off from its account at once; needs root.

    Its tickets are wiped, and it gets no others until it ends. What was copied out of it before is
    valid until it ends: minutes for tickets of services, hours for a TGT. `credspec status --output
    json` lists the leases with their containers.
    """
    from credspec.agent.leases.record import valid_id
    from credspec.api_client import AgentClient
    from credspec.config.host import load_config

    client = AgentClient(load_config().agent_socket)
    found = client.request("POST", f"/v1/leases/{valid_id(lease_id)}/revoke")
    click.echo(f"{found['container']}: cut off from {', '.join(found['accounts'])}")
