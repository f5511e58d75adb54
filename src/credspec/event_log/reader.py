"""Reads all sources of a host into one timeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from credspec.event_log.entries import Entry, audit_entry, log_entry
from credspec.event_log.sources import Lines
from credspec.event_log.timeline import Filter, Timeline


class EventReader:
    """The entries of an audit log and of logs that match a filter.

    `unreadable` is how many lines of the audit log are no entries of one.
    """

    def __init__(self, audit: Lines, logs: list[Lines], wanted: Filter) -> None:
        self._sources: list[tuple[Lines, Callable[[str], Entry | None]]] = [
            (audit, audit_entry),
            *((log, log_entry) for log in logs),
        ]
        self._wanted = wanted
        self._timeline = Timeline()
        self.unreadable = 0

    def read(self, before: datetime | None = None) -> list[Entry]:
        """Return what is new before a moment, oldest first; see `Timeline.take`.

        Raises:
            CredspecError: `log-unreadable`.
        """
        for source, parse in self._sources:
            self._timeline.add(self._entries(source, parse))
        return [entry for entry in self._timeline.take(before) if self._wanted.matches(entry)]

    def close(self) -> None:
        """Close the sources."""
        for source, _ in self._sources:
            source.close()

    def _entries(self, source: Lines, parse: Callable[[str], Entry | None]) -> Iterator[Entry]:
        for line in source.new():
            entry = parse(line)
            if entry is not None:
                yield entry
            elif parse is audit_entry and line.strip():
                self.unreadable += 1
