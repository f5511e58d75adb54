"""Asks the agent again and again, and remembers what only a series shows."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Final

from credspec.api_client import AgentClient
from credspec.errors import CredspecError
from credspec.event_log.reader import EventReader
from credspec.status_page.feed import KEPT_EVENTS, Feed

MAX_ROWS: Final = 1000
"""So many leases and identities are sent to a page."""

_POINTS: Final = 60
_SETTLED: Final = timedelta(seconds=1)
_LISTS: Final = ("identities", "leases", "domains")


class Watcher:
    """Reads agent and logs, and puts what it finds into the feed.

    An agent that does not answer is part of what it finds.
    """

    def __init__(
        self,
        client: AgentClient,
        events: EventReader,
        feed: Feed,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client, self._events, self._feed, self._now = client, events, feed, now
        self._latencies: dict[str, deque[tuple[int, float]]] = {}
        self._down_since: datetime | None = None
        self._lists: dict[str, Any] = {name: [] for name in _LISTS}
        self._is_first = True

    def run(self, interval: float, end: threading.Event) -> None:
        """Look every `interval` seconds until the end."""
        while not end.wait(0 if self._is_first else interval):
            self.look()

    def look(self) -> None:
        """Look once."""
        self._feed.put("state", self._state())
        self._look_at_events()
        self._is_first = False

    def identity(self, name: str) -> tuple[str, str] | None:
        """Return account and domain of an identity that the agent holds, None if it holds none."""
        for each in self._lists["identities"]:
            if f"{each['account']}@{each['domain']}" == name:
                return str(each["account"]), str(each["domain"])
        return None

    def _state(self) -> dict[str, Any]:
        hindrances: list[str] = []
        error = None
        try:
            self._lists = {name: self._client.get(f"/v1/{name}")[name] for name in _LISTS}
            failure = self._client.get("/healthz").get("reload_error")
            if failure:
                hindrances.append(f"Configuration not reloaded, the old one is in force: {failure}")
            hindrances += self._hindrances()
            self._down_since = None
        except CredspecError as failed:
            error = str(failed)
            self._down_since = self._down_since or self._now()
        for domain in self._lists["domains"]:
            self._remember(domain, is_current=error is None)
        return {
            "error": error,
            "since": None if self._down_since is None else self._down_since.isoformat(),
            "hindrances": hindrances,
            "counts": {name: len(self._lists[name]) for name in _LISTS},
            **{name: self._lists[name][:MAX_ROWS] for name in _LISTS},
            "latencies": {name: list(points) for name, points in self._latencies.items()},
        }

    def _hindrances(self) -> list[str]:
        try:
            self._client.get("/readyz")
        except CredspecError as error:
            if error.response_status != HTTPStatus.SERVICE_UNAVAILABLE:
                raise
            return [f"Not ready: {problem.found}" for problem in error.problems]
        return []

    def _remember(self, domain: dict[str, Any], *, is_current: bool) -> None:
        """Keep the last latency of each minute of an hour."""
        minute = int(self._now().timestamp() // 60)
        points = self._latencies.setdefault(domain["domain"], deque(maxlen=_POINTS))
        if is_current and domain["latency_seconds"] is not None:
            if points and points[-1][0] == minute:
                points.pop()
            points.append((minute, round(1000 * domain["latency_seconds"], 1)))
        while points and points[0][0] <= minute - _POINTS:
            points.popleft()

    def _look_at_events(self) -> None:
        try:
            # What is there at the start is complete.
            entries = self._events.read(None if self._is_first else self._now() - _SETTLED)
        except CredspecError as error:
            self._feed.put("events_error", str(error))
            return
        self._feed.add_events(
            [{**entry.to_json(), "text": entry.detail()} for entry in entries[-KEPT_EVENTS:]]
        )
