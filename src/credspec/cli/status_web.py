"""``credspec status --web``: puts the status page together and serves it until Ctrl-C."""

from __future__ import annotations

import threading
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

_EVENTS_OF: Final = timedelta(days=1)


def serve(port: int, interval: float) -> None:
    """Serve the page on 127.0.0.1 until Ctrl-C.

    Raises:
        UsageError: `status-port`.
    """
    from credspec.api_client import AgentClient
    from credspec.config.host import load_config
    from credspec.errors import UsageError
    from credspec.event_log.reader import EventReader
    from credspec.event_log.sources import GrowingFile
    from credspec.event_log.timeline import Filter
    from credspec.installation import program
    from credspec.service.process_safety import forbid_core_dumps
    from credspec.status_page.doctor_run import DoctorRun
    from credspec.status_page.feed import Feed
    from credspec.status_page.server import ADDRESS, StatusServer
    from credspec.status_page.watcher import Watcher

    forbid_core_dumps()  # the address is a secret
    config = load_config()
    since = datetime.now(UTC) - _EVENTS_OF
    feed, end = Feed(), threading.Event()
    with ExitStack() as stack:
        events = EventReader(GrowingFile(config.audit_log), _journal(since), Filter(since=since))
        stack.callback(events.close)
        watcher = Watcher(AgentClient(config.agent_socket), events, feed)
        try:
            server = StatusServer(port, feed, watcher, DoctorRun(program(), feed))
        except OSError as error:
            raise UsageError.of(
                "status-port",
                error.strerror or str(error),
                where=f"{ADDRESS}:{port}",
                remedy="give another --port, or none",
            ) from None
        stack.callback(server.server_close)
        watching = threading.Thread(target=watcher.run, args=(interval, end), daemon=True)
        watching.start()
        stack.callback(watching.join)
        stack.callback(feed.close)
        stack.callback(end.set)
        click.echo(server.address)
        click.echo("Open it in a browser: it works once. Ctrl-C ends the page.", err=True)
        with suppress(KeyboardInterrupt):  # this is how to end it
            server.serve_forever()


def _journal(since: datetime) -> list[Any]:
    from credspec.event_log.sources import SystemdJournal

    try:
        return [SystemdJournal(since, follow=True)]
    except FileNotFoundError:
        return []
