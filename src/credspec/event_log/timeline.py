"""One list of entries from several sources: in order, and each decision once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from credspec.event_log.entries import AUDIT, Entry
from credspec.service.events import Event

_DECISIONS: Final = frozenset(
    event.number
    for event in (
        Event.LEASE_GRANTED,
        Event.LEASE_DENIED,
        Event.LEASE_RELEASED,
        Event.LEASE_REVOKED,
    )
)
# Both lines of a decision are written within this time.
_APART: Final = timedelta(seconds=5)
_REMEMBERED: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which entries are wanted: all that every given part matches.

    `lease` is the beginning of a lease's or a container's id, `account` an account's name, with or
    without ``$`` and ``@domain``.
    """

    since: datetime | None = None
    lease: str | None = None
    account: str | None = None

    def matches(self, entry: Entry) -> bool:
        """Return whether an entry is wanted."""
        if self.since is not None and entry.time < self.since:
            return False
        if self.lease is not None and not any(
            str(entry.fields.get(name, "")).startswith(self.lease)
            for name in ("lease", "container")
        ):
            return False
        return self.account is None or any(map(self._is_account, entry.accounts))

    def _is_account(self, name: str) -> bool:
        wanted, _, wanted_domain = (self.account or "").lower().partition("@")
        found, _, domain = name.partition("@")
        return wanted.rstrip("$") == found.rstrip("$") and wanted_domain in {"", domain}


class Timeline:
    """Puts entries of several sources in order as they come.

    A decision has a line in the audit log, which says who asked, and one in the agent's log, which
    has the reason in words: they become one entry. Entries of a lease get the accounts with which
    it was granted.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, Entry] = {}
        self._count = 0
        # Of decisions that have one line so far: which are waiting, by what they are about.
        self._single: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
        self._granted: dict[str, dict[str, Any]] = {}

    def add(self, entries: Iterable[Entry]) -> None:
        """Add entries, in the order of their source."""
        for entry in entries:
            self._add(self._with_accounts(entry))

    def _add(self, entry: Entry) -> None:
        if entry.event_id not in _DECISIONS:
            self._wait(entry)
            return
        key = entry.event_id, str(entry.fields.get("container", ""))
        for number in self._single[key]:
            other = self._waiting[number]
            if other.source != entry.source and abs(other.time - entry.time) < _APART:
                audited, logged = (other, entry) if other.source == AUDIT else (entry, other)
                self._waiting[number] = audited.with_fields(logged.fields)
                self._single[key].remove(number)
                return
        self._single[key].append(self._wait(entry))

    def _wait(self, entry: Entry) -> int:
        self._count += 1
        self._waiting[self._count] = entry
        return self._count

    def _with_accounts(self, entry: Entry) -> Entry:
        lease = entry.fields.get("lease")
        if not isinstance(lease, str):
            return entry
        if entry.event_id == Event.LEASE_GRANTED.number:
            kept = {name: entry.fields.get(name) for name in ("domain", "accounts")}
            if all(kept.values()):
                self._granted[lease] = kept
                if len(self._granted) > _REMEMBERED:
                    del self._granted[next(iter(self._granted))]
        known = self._granted.get(lease)
        return entry.with_fields(known) if known else entry

    def take(self, before: datetime | None = None) -> list[Entry]:
        """Return the entries before a moment, oldest first, and keep the others; None for all.

        With a moment that is some time ago, entries whose other line is still to come are kept.
        """
        ready = [n for n, each in self._waiting.items() if before is None or each.time < before]
        taken = [self._waiting.pop(number) for number in ready]
        for key, numbers in list(self._single.items()):
            left = [number for number in numbers if number in self._waiting]
            if left:
                self._single[key] = left
            else:
                del self._single[key]
        return sorted(taken, key=lambda entry: entry.time)
