"""What open pages are sent: the newest state of each part, and events as they come."""

from __future__ import annotations

import json
import threading
from collections import deque
from typing import Any, Final

KEPT_EVENTS: Final = 500


class Feed:
    """Messages by name, of which the newest counts, and a list of events that grows.

    Each change has a number, by which a page asks for what came after it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._number = 0
        self._messages: dict[str, tuple[int, str]] = {}
        self._events: deque[tuple[int, Any]] = deque(maxlen=KEPT_EVENTS)
        self._is_closed = False

    def put(self, name: str, content: Any) -> None:
        """Replace a message; nothing is sent if it is as it was."""
        text = json.dumps(content, separators=(",", ":"))
        with self._changed:
            if self._messages.get(name, (0, ""))[1] != text:
                self._number += 1
                self._messages[name] = self._number, text
                self._changed.notify_all()

    def add_events(self, entries: list[Any]) -> None:
        """Add entries at the end of the list."""
        with self._changed:
            for entry in entries:
                self._number += 1
                self._events.append((self._number, entry))
            if entries:
                self._changed.notify_all()

    def after(self, seen: int, seconds: float) -> tuple[int, list[tuple[str, str]]]:
        """Return what came after a number, at the latest in some seconds, and the newest number.

        Each item is the name of a message and its JSON.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._number > seen, seconds)
            found = [
                (name, text) for name, (number, text) in self._messages.items() if number > seen
            ]
            entries = [entry for number, entry in self._events if number > seen]
            if entries:
                found.append(("events", json.dumps(entries, separators=(",", ":"), default=str)))
            return self._number, found

    def close(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        """Whether the command ends."""
        return self._is_closed
