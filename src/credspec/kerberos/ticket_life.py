"""Whether a ticket is good for use now, by this host's clock. Pure: the time is given to it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

CLOCK_SKEW: Final = timedelta(minutes=5)
"""By how much two clocks may differ before services refuse a ticket (RFC 4120 8.2)."""

LEAST_SHARE_LEFT: Final = 0.25
"""The share of a ticket's lifetime of which more is left whenever it is given to a container."""


def is_fit_to_give(start: datetime, end: datetime, now: datetime) -> bool:
    """Return whether a ticket, good from `start` to `end`, may be given to a container at `now`.

    More than a quarter of its lifetime must be left, and it must not start in the future, but for
    the skew of clocks: services refuse such a ticket (RFC 4120 3.2.3, KRB_AP_ERR_TKT_NYV).
    """
    return start - now <= CLOCK_SKEW and end - now > (end - start) * LEAST_SHARE_LEFT


def lasts(start: datetime, end: datetime, now: datetime, least: timedelta) -> bool:
    """Return whether a ticket can be used at `now` and for some time more.

    That is `least`, or a quarter of its lifetime where that is shorter.
    """
    return start - now <= CLOCK_SKEW and end - now >= min(least, (end - start) * LEAST_SHARE_LEFT)


def state_of(start: datetime, end: datetime, now: datetime) -> str:
    """Return in words how old a ticket is, such as ``ended 1 h 0 min ago``."""
    if start - now > CLOCK_SKEW:
        return f"starts {_length(start - now)} from now"
    if end <= now:
        return f"ended {_length(now - end)} ago"
    return f"is {_length(max(now - start, timedelta()))} old and ends in {_length(end - now)}"


def _length(span: timedelta) -> str:
    seconds = round(span.total_seconds())
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
