"""``credspec status``: what the agent holds."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import click

from credspec.cli.help_text import examples


@click.command(
    epilog=examples("credspec status --output json"),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def status(output: str) -> None:
    """Show the agent's identities, their tickets and the containers that hold leases."""
    from credspec.agent.client import AgentClient
    from credspec.agent.config import load_config

    client = AgentClient(load_config().agent_socket)
    identities = client.get("/v1/identities")
    leases = client.get("/v1/leases")
    if output == "json":
        click.echo(json.dumps(identities | leases, indent=2))
    else:
        _print_tables(identities["identities"], leases["leases"])


def _print_tables(identities: list[dict[str, Any]], leases: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not identities and not leases:
        console.print("No leases.")
        return
    table = Table("Identity", "Leases", "Ticket left", "Acquired again in", "Last error")
    for identity in identities:
        table.add_row(
            f"{identity['account']}@{identity['domain']}",
            str(identity["leases"]),
            _until(identity["ticket"]["end"]),
            _until(identity["refresh_at"]),
            identity["last_error"] or "",
        )
    console.print(table)
    table = Table("Container", "Accounts", "Since")
    for lease in leases:
        table.add_row(lease["container"][:12], ", ".join(lease["accounts"]), lease["created"][:19])
    console.print(table)


def _until(moment: str | None) -> str:
    if moment is None:
        return ""
    seconds = int((datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds())
    minutes = max(0, seconds) // 60
    return f"{minutes // 60} h {minutes % 60:02d} min"
