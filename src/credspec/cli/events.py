"""``credspec events``: the audit log and the agent's events in one list."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from credspec.cli.help_text import examples

if TYPE_CHECKING:
    from credspec.event_log.entries import Entry
    from credspec.event_log.reader import EventReader

_SECONDS_OF: Final = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_AGE: Final = re.compile(r"(?:\d{1,6}[dhms])+", re.ASCII)
_TICK_SECONDS: Final = 0.5
# The two lines of a decision may be so far apart, and are shown as one.
_SETTLED: Final = timedelta(seconds=1)
_COLOURS: Final = {"warning": "yellow", "error": "red"}
_EVENT_WIDTH: Final = 20


class Since(click.ParamType[datetime]):
    """A moment, as an age (``90s``, ``2h30m``, ``7d``) or as ISO 8601, local without a zone."""

    name = "since"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Return the moment in UTC."""
        if isinstance(value, datetime):
            return value
        text = str(value).strip()
        try:
            if _AGE.fullmatch(text):
                parts = re.findall(r"(\d+)([dhms])", text)
                seconds = sum(int(number) * _SECONDS_OF[unit] for number, unit in parts)
                return datetime.now(UTC) - timedelta(seconds=seconds)
            return datetime.fromisoformat(text).astimezone(UTC)
        except (ValueError, OverflowError):
            expected = "an age such as 2h or 7d, or a time such as 2026-01-31T18:00"
            self.fail(f"{text[:40]!r} is no moment; expected {expected}", param, ctx)


@click.command(
    epilog=examples(
        "credspec events",
        "credspec events --account WebApp01 --since 2h --output json",
        "credspec events --lease 4f1c --since 7d",
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens, until Ctrl-C.")
@click.option(
    "--since",
    type=Since(),
    default="1d",
    show_default=True,
    metavar="AGE|TIME",
    help="How far back: 90s, 2h30m, 7d, or 2026-01-31T18:00.",
)
@click.option("--lease", metavar="ID", help="Only a lease or container, by the start of its id.")
@click.option("--account", metavar="NAME[@DOMAIN]", help="Only what is about an account.")
@click.option(
    "--log",
    type=click.Path(path_type=Path, allow_dash=True),
    help="The agent's log, - for standard input.  [default: systemd's journal]",
)
@click.option(
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="With json, each entry is a line.",
)
def events(
    *,
    follow: bool,
    since: datetime,
    lease: str | None,
    account: str | None,
    log: Path | None,
    output: str,
) -> None:
    """Show who was given which accounts, and what else happened, in one list.

    The audit log has the decisions, the agent's log the events; what both have is shown once. It
    needs root, since the audit log is not for other users. An agent that is no service of systemd
    writes its log to standard error: give it with --log.
    """
    from credspec.config.host import load_config
    from credspec.event_log.reader import EventReader
    from credspec.event_log.sources import GrowingFile
    from credspec.event_log.timeline import Filter

    config = load_config()
    wanted = Filter(since=since, lease=lease, account=account)
    logs = _logs(log, since, follow=follow)
    reader = EventReader(GrowingFile(config.audit_log), logs, wanted)
    try:
        if follow:
            _follow(reader, output)
        else:
            found = reader.read()
            _show(found, output)
            if not found:
                moment = f"{since.astimezone():%Y-%m-%d %H:%M}"
                click.echo(f"credspec events: there is nothing of this since {moment}", err=True)
            if reader.unreadable:
                count = f"{reader.unreadable} lines of {config.audit_log} are no entries"
                click.echo(f"credspec events: {count}; they are left out", err=True)
    except KeyboardInterrupt:
        return  # this is how to end it
    finally:
        reader.close()


def _logs(log: Path | None, since: datetime, *, follow: bool) -> list[Any]:
    from credspec.event_log.sources import GrowingFile, Pipe, SystemdJournal

    if log == Path("-"):
        return [Pipe(0, wait=not follow)]
    if log is not None:
        return [GrowingFile(log)]
    try:
        return [SystemdJournal(since, follow=follow)]
    except FileNotFoundError:
        click.echo("credspec events: no journalctl here; give the log with --log", err=True)
        return []


def _follow(reader: EventReader, output: str) -> None:
    while True:
        _show(reader.read(datetime.now(UTC) - _SETTLED), output)
        time.sleep(_TICK_SECONDS)


def _show(entries: list[Entry], output: str) -> None:
    from credspec.printable import printable

    for entry in entries:
        if output == "json":
            click.echo(json.dumps(entry.to_json(), default=str))
        else:
            moment = entry.time.astimezone().strftime("%Y-%m-%d %H:%M:%S")
            event = printable(entry.event)
            label = click.style(f"{event:<{_EVENT_WIDTH}}", fg=_COLOURS.get(entry.level))
            click.echo(f"{moment}  {label}  {printable(entry.detail())}".rstrip())
