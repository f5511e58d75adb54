"""``credspec status``: what the agent holds, and how the domains do."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import click

from credspec.cli.help_text import examples

if TYPE_CHECKING:
    from credspec.api_client import AgentClient

_LISTS: Final = ("identities", "leases", "domains")
_PIPE_WIDTH: Final = 1000


@click.command(
    epilog=examples("credspec status", "credspec status --output json"),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--watch", is_flag=True, help="Repeat until Ctrl-C.")
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 3600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="With --watch and --web: how long to wait in between.",
)
@click.option("--web", is_flag=True, help="Serve a page on 127.0.0.1, and print its address.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="With --web: the TCP port.  [default: one that is free]",
)
def status(output: str, watch: bool, interval: float, web: bool, port: int) -> None:
    """Show identities and their tickets, the containers that hold leases, and the domains.

    A ticket's bar is the part of its lifetime that is left. With --watch and --output json, each
    time is a line. With --web, a browser shows it as it changes, with the last events and the
    doctor; the address that is printed works once.
    """
    if web:
        if watch or output == "json":
            raise click.UsageError("--web goes with neither --watch nor --output json.")
        from credspec.cli.status_web import serve

        serve(port, interval)
        return
    from credspec.api_client import AgentClient
    from credspec.config.host import load_config

    client = AgentClient(load_config().agent_socket)
    if not watch:
        state = _state(client)
        if output == "json":
            click.echo(json.dumps(state, indent=2))
        else:
            console = _console()
            console.print(_tables(state, _hindrances(client), boxes=console.is_terminal))
        return
    try:
        _watch(client, output, interval)
    except KeyboardInterrupt:
        return  # this is how to end it


def _state(client: AgentClient) -> dict[str, Any]:
    state: dict[str, Any] = {}
    for name in _LISTS:
        state |= client.get(f"/v1/{name}")
    error = client.get("/healthz").get("reload_error")
    return state | ({"reload_error": error} if error else {})


def _hindrances(client: AgentClient) -> list[str]:
    """Return why the agent is not ready to make leases, nothing if it is."""
    from credspec.errors import CredspecError

    try:
        client.get("/readyz")
    except CredspecError as error:
        if error.response_status != HTTPStatus.SERVICE_UNAVAILABLE:
            raise
        return [problem.found for problem in error.problems]
    return []


def _watch(client: AgentClient, output: str, interval: float) -> None:
    from rich.live import Live
    from rich.text import Text

    from credspec.errors import CredspecError

    if output == "json":
        while True:
            click.echo(json.dumps(_state(client)))
            time.sleep(interval)
    console = _console()

    def look() -> Any:
        try:
            return _tables(_state(client), _hindrances(client), boxes=console.is_terminal)
        except CredspecError as error:
            # An agent that restarts comes back.
            return Text(str(error), style="red")

    if not console.is_terminal:
        while True:
            console.print(look())
            time.sleep(interval)
    with Live(look(), console=console, auto_refresh=False, screen=True) as live:
        while True:
            time.sleep(interval)
            live.update(look(), refresh=True)


def _console() -> Any:
    from rich.console import Console

    console = Console()
    # Programs read a pipe: there lines are never wrapped or cut.
    return console if console.is_terminal else Console(width=_PIPE_WIDTH)


def _tables(state: dict[str, Any], hindrances: list[str], *, boxes: bool) -> Any:
    from rich.console import Group
    from rich.text import Text

    now = datetime.now(UTC)
    not_ready = [Text(f"Not ready: {reason}", style="red") for reason in hindrances]
    if "reload_error" in state:
        failed = f"Configuration not reloaded, the old one is in force: {state['reload_error']}"
        not_ready.append(Text(failed, style="red"))
    if not state["leases"] and not state["identities"] and not _is_any_amiss(state["domains"]):
        return Group(*not_ready, Text("No leases."))
    parts = [
        *not_ready,
        _domain_table(state["domains"], now, boxes=boxes),
        _identity_table(state["identities"], now, boxes=boxes),
    ]
    if state["leases"]:
        parts.append(_lease_table(state["leases"], now, boxes=boxes))
    for lease in state["leases"]:
        name = lease["container"][:12]
        parts += [
            Text(f"{name}: {service['service']}: {service['error']}", style="red")
            for service in lease.get("service_tickets", ())
            if service["error"]
        ]
        if lease.get("denied"):
            refused = f"{name}: {lease['denied']} requests for services it may not have"
            parts.append(Text(refused, style="red"))
    # Errors are long: below the tables they leave the columns their width.
    of_identities = [(f"{i['account']}@{i['domain']}", i) for i in state["identities"]]
    of_domains = [(domain["domain"], domain) for domain in state["domains"]]
    for name, each in (*of_domains, *of_identities):
        if each["last_error"]:
            parts.append(Text(f"{name}: {each['last_error']}", style="red"))
    return Group(*parts)


def _is_any_amiss(domains: list[dict[str, Any]]) -> bool:
    return any(domain["outage_since"] or domain["last_error"] for domain in domains)


def _domain_table(domains: list[dict[str, Any]], now: datetime, *, boxes: bool) -> Any:
    from credspec.cli.status_table import StatusTable

    table = StatusTable(
        *("Domain", "Controller", "Latency", "State"), names=("Domain", "Controller"), boxes=boxes
    )
    for domain in domains:
        latency = domain["latency_seconds"]
        since = domain["outage_since"]
        table.add_row(
            domain["domain"],
            domain["controller"] or "",
            "" if latency is None else f"{1000 * latency:.0f} ms",
            "answers" if since is None else f"[red]no answer for {_span(since, now)}",
        )
    return table


def _identity_table(identities: list[dict[str, Any]], now: datetime, *, boxes: bool) -> Any:
    from credspec.cli.status_table import StatusTable

    table = StatusTable(
        *("Identity", "Leases", "", "Ticket left", "Acquired again", "Password"),
        names=("Identity",),
        boxes=boxes,
    )
    for identity in identities:
        table.add_row(
            f"{identity['account']}@{identity['domain']}",
            str(identity["leases"]),
            *_left(identity["ticket"]["start"], identity["ticket"]["end"], now),
            _to_come(identity["refresh_at"], now),
            _to_come(identity["password_due"], now),
        )
    return table


def _lease_table(leases: list[dict[str, Any]], now: datetime, *, boxes: bool) -> Any:
    from credspec.cli.status_table import StatusTable

    table = StatusTable(
        *("Container", "Accounts", "Tickets", "", "Ticket left", "Age"),
        names=("Container", "Accounts"),
        boxes=boxes,
    )
    for lease in leases:
        table.add_row(
            lease["container"][:12],
            "\n".join(lease["accounts"]),
            _kind(lease),
            *_left(lease["ticket_start"], lease["ticket_end"], now),
            _span(lease["created"], now),
        )
    return table


def _kind(lease: dict[str, Any]) -> str:
    """Return which tickets a container has; of an agent before there were kinds, a TGT."""
    if lease.get("revoked"):
        return "[red]revoked"
    return "\n".join((lease.get("tickets", "tgt"), *lease.get("services", ())))


def _left(start: str | None, end: str | None, now: datetime) -> tuple[Any, str]:
    """Return a bar and the words for what is left of a ticket."""
    from rich.progress_bar import ProgressBar

    if start is None or end is None:
        return "", "none yet"
    first, last = datetime.fromisoformat(start), datetime.fromisoformat(end)
    left = max(0.0, (last - now) / (last - first)) if last > first else 0.0
    # A quarter is what a container is promised.
    style = "green" if left > 0.25 else "red"  # noqa: PLR2004
    bar = ProgressBar(
        total=1.0, completed=left, width=16, complete_style=style, finished_style=style
    )
    return bar, _duration((last - now).total_seconds()) if left else "[red]expired"


def _to_come(moment: str | None, now: datetime) -> str:
    if moment is None:
        return ""
    seconds = (datetime.fromisoformat(moment) - now).total_seconds()
    return f"in {_duration(seconds)}" if seconds > 0 else "now"


def _span(since: str, now: datetime) -> str:
    return _duration((now - datetime.fromisoformat(since)).total_seconds())


def _duration(seconds: float) -> str:
    minutes = max(0, int(seconds)) // 60
    days, hours = minutes // 1440, minutes // 60 % 24
    if days:
        return f"{days} d {hours} h"
    return (
        f"{hours} h {minutes % 60:02d} min" if hours else f"{minutes} min {int(seconds) % 60:02d} s"
    )
