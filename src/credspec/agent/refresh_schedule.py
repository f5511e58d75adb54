"""When the identities of a domain are acquired again. Pure: time and chance are given to it.

A ticket is replaced long before a quarter of its life is all that is left. Times are chosen where
the fewest are already, so a thousand identities ask in turn and not at once. An outage of the
domain is one retry for all, and what it delayed is made up for over half as long again. Plans are
times of day: when the clock is set, `plan_again` corrects them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Generic, TypeVar

from credspec.kerberos.ticket_life import is_fit_to_give

Spread = Callable[[float, float], float]
"""Returns a random number between two bounds, such as `random.Random().uniform`."""

# Shares of a ticket's life. The first refresh comes anywhere in a wide window, since identities
# are often made together; later ones keep the distance that they have by then.
_FIRST: Final = (0.02, 0.55)
_AGAIN: Final = (0.5, 0.6)
_LAST: Final = 0.74
_AT_ONCE: Final = 0.02
# Of an outage's length; missed work on top of the usual must not double a domain's load.
_MADE_UP: Final = 1.5
# Containers whose tickets have ended cannot wait for long; a domain can serve two of them a second.
_URGENT: Final = timedelta(seconds=10)
_URGENT_EACH: Final = timedelta(seconds=0.6)

_SLOT_SECONDS: Final = 60
_MANY_SLOTS: Final = 2000
_FIRST_RETRY: Final = timedelta(seconds=5)
_LONGEST_PROBE: Final = timedelta(minutes=5)
_LONGEST_RETRY: Final = timedelta(minutes=30)

_Name = TypeVar("_Name")


@dataclass(slots=True)
class _Entry:
    """An identity's ticket, and when it is to be replaced; no `due` while that is under way."""

    start: datetime
    end: datetime
    due: datetime | None = None
    failures: int = 0

    @property
    def life(self) -> timedelta:
        return self.end - self.start

    @property
    def last(self) -> datetime:
        return self.start + self.life * _LAST

    def is_fit(self, now: datetime) -> bool:
        return is_fit_to_give(self.start, self.end, now)


@dataclass(slots=True)
class _Outage:
    since: datetime
    failures: int
    probe_at: datetime


@dataclass(slots=True)
class RefreshSchedule(Generic[_Name]):
    """The identities of one domain and when each is acquired again.

    `spread` is the only source of chance. Every method that needs the time is given it as `now`.
    """

    spread: Spread
    _entries: dict[_Name, _Entry] = field(default_factory=dict)
    _slots: Counter[int] = field(default_factory=Counter)
    _outage: _Outage | None = None
    _probe: _Name | None = None

    def add(self, name: _Name, *, start: datetime, end: datetime, now: datetime) -> None:
        """Take in an identity whose ticket, good from `start` to `end`, was obtained or adopted."""
        self.remove(name)
        self._entries[name] = entry = _Entry(start, end)
        low, high = (start + entry.life * share for share in _FIRST)
        if high - now < entry.life * _AT_ONCE:
            # Adopted late in its life: over what time is left.
            high = max(entry.last, now + entry.life * _AT_ONCE)
        self._plan(entry, max(low, now), high)

    def remove(self, name: _Name) -> None:
        """Forget an identity; one that is not there is fine."""
        entry = self._entries.pop(name, None)
        if entry is not None:
            self._unplan(entry)
        if self._probe == name:
            self._probe = None

    def hasten(self, name: _Name, when: datetime) -> None:
        """Let an identity be acquired at `when`, if its turn would come later."""
        entry = self._entries.get(name)
        if entry is not None and entry.due is not None and entry.due > when:
            self._unplan(entry)
            self._put(entry, when)

    def due(self, now: datetime) -> list[_Name]:
        """Return the identities to acquire now, oldest first; each then is under way.

        During an outage that is one, which finds out whether the domain is back.
        """
        overdue = sorted(
            (entry.due, index, name)
            for index, (name, entry) in enumerate(self._entries.items())
            if entry.due is not None and entry.due <= now
        )
        names = [name for _, _, name in overdue]
        if self._outage is not None:
            if now < self._outage.probe_at or self._probe is not None or not names:
                return []
            names = names[:1]
            self._probe = names[0]
        for name in names:
            self._unplan(self._entries[name])
        return names

    def succeeded(self, name: _Name, *, start: datetime, end: datetime, now: datetime) -> None:
        """Take note of a new ticket of an identity that was due."""
        self.reached(now)
        entry = self._entries.get(name)
        if entry is None:
            return
        self._unplan(entry)
        entry.start, entry.end, entry.failures = start, end, 0
        low, high = (start + entry.life * share for share in _AGAIN)
        # Not at once, whatever the clocks say: it would not end.
        soonest = now + entry.life * _AT_ONCE
        self._plan(entry, max(low, soonest), max(high, soonest))

    def failed(self, name: _Name, now: datetime, *, unreachable: bool) -> None:
        """Take note of a failure, of the domain (`unreachable`) or of the account."""
        entry = self._entries.get(name)
        if unreachable:
            self._not_reached(name, now)
            if entry is not None:
                # Overdue: it waits for the outage to end.
                self._put(entry, now)
            return
        self.reached(now)
        if entry is not None:
            self._unplan(entry)
            entry.failures += 1
            self._put(entry, now + retry_delay(entry.failures, self.spread, _LONGEST_RETRY))

    def reached(self, now: datetime) -> None:
        """Take note that the domain answered: an outage is over."""
        outage, self._outage, self._probe = self._outage, None, None
        if outage is None:
            return
        overdue = [e for e in self._entries.values() if e.due is not None and e.due <= now]
        urgent = _urgent(sum(not entry.is_fit(now) for entry in overdue))
        for entry in overdue:
            self._unplan(entry)
            self._plan(entry, now, _made_up_for(entry, now, now - outage.since, urgent))

    def plan_again(self, now: datetime) -> None:
        """Correct the plans after the clock was set or the host slept.

        Tickets that have ended, start in the future or have less than a quarter of their life left
        are replaced soon, spread as after an outage; what is overdue otherwise is spread as well.
        """
        if self._outage is not None:
            self._outage.since = min(self._outage.since, now)
            self._outage.probe_at = min(self._outage.probe_at, now + _LONGEST_PROBE)
        waiting = [entry for entry in self._entries.values() if entry.due is not None]
        urgent = _urgent(sum(now >= e.last or not e.is_fit(now) for e in waiting))
        for entry in waiting:
            due = entry.due or now
            if self._outage is not None:
                # They wait for its end, however late that is.
                self._put(entry, due if entry.is_fit(now) else min(due, now))
            elif not entry.is_fit(now) or now >= entry.last:
                self._plan(entry, now, now + min(urgent, max(entry.life * _AT_ONCE, _URGENT)))
            elif due <= now:
                self._plan(entry, now, _made_up_for(entry, now, timedelta(), urgent))
            elif entry.failures:
                self._put(entry, min(due, now + _LONGEST_RETRY))

    def next_time(self) -> datetime | None:
        """Return when `due` is to be asked again, None if nothing is planned."""
        planned = [entry.due for entry in self._entries.values() if entry.due is not None]
        if not planned:
            return None
        if self._outage is None:
            return min(planned)
        # Until the probe's result is reported, nothing else is acquired.
        return None if self._probe is not None else max(min(planned), self._outage.probe_at)

    def planned(self, name: _Name) -> datetime | None:
        """Return when an identity is to be acquired, None while that is under way."""
        entry = self._entries.get(name)
        if entry is None or entry.due is None:
            return None
        return max(entry.due, self._outage.probe_at) if self._outage is not None else entry.due

    @property
    def outage_since(self) -> datetime | None:
        """Since when the domain does not answer, None if it does as far as is known."""
        return None if self._outage is None else self._outage.since

    def _not_reached(self, name: _Name, now: datetime) -> None:
        if self._outage is None:
            self._outage = _Outage(now, 0, now)
        elif self._probe != name:
            # It was under way when the outage began, and shows nothing new.
            return
        self._probe = None
        self._outage.failures += 1
        delay = retry_delay(self._outage.failures, self.spread, _LONGEST_PROBE)
        self._outage.probe_at = now + delay

    def _plan(self, entry: _Entry, low: datetime, high: datetime) -> None:
        """Choose a time between two, in a minute that has as few as any."""
        first, last = (int(time.timestamp()) // _SLOT_SECONDS for time in (low, high))
        if last - first < 2:  # noqa: PLR2004 - no whole minute in between
            self._put(entry, low + (high - low) * self.spread(0.0, 1.0))
            return
        step = max(1, (last - first) // _MANY_SLOTS)
        slots = range(first + 1, last, step)
        planned = [self._slots.get(slot, 0) for slot in slots]
        fewest = min(planned)
        free = [slot for slot, number in zip(slots, planned, strict=True) if number == fewest]
        slot = free[min(int(self.spread(0, len(free))), len(free) - 1)]
        self._put(
            entry, datetime.fromtimestamp((slot + self.spread(0.0, 0.999)) * _SLOT_SECONDS, UTC)
        )

    def _put(self, entry: _Entry, when: datetime) -> None:
        self._unplan(entry)
        entry.due = when
        self._slots[int(when.timestamp()) // _SLOT_SECONDS] += 1

    def _unplan(self, entry: _Entry) -> None:
        if entry.due is None:
            return
        slot = int(entry.due.timestamp()) // _SLOT_SECONDS
        self._slots[slot] -= 1
        if self._slots[slot] <= 0:
            del self._slots[slot]
        entry.due = None


def _made_up_for(entry: _Entry, now: datetime, outage: timedelta, urgent: timedelta) -> datetime:
    """Return until when an identity that an outage delayed has its turn."""
    soon = entry.life * _AT_ONCE
    if entry.is_fit(now) and now < entry.last:
        return min(now + max(outage * _MADE_UP, soon), entry.last)
    # Too late for that: over half of the time that the ticket is still good for.
    left = (entry.end - now) / 2 if entry.start <= now else timedelta()
    return now + max(left, min(urgent, max(soon, _URGENT)))


def _urgent(number: int) -> timedelta:
    """Return how long it takes to replace so many tickets that cannot be given any more."""
    return max(_URGENT, number * _URGENT_EACH)


def retry_delay(failures: int, spread: Spread, longest: timedelta) -> timedelta:
    """Return how long to wait after `failures` failures in a row: doubling, jittered, bounded."""
    doubled: timedelta = _FIRST_RETRY * (1 << min(failures - 1, 16))
    return min(doubled, longest) * spread(0.5, 1.0)
