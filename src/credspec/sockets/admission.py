"""Who may connect to a listening socket, how often, and how many at a time.

Those who may connect may have so many open connections a user and in all, of which some are kept
for root and for this process's own user; and so many new ones a second, of which those on top wait
without holding up other users. `credspec.sockets.connection_listener` accepts by these rules.
"""

from __future__ import annotations

import os
import resource
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from credspec.rate_limit import Clock, RateLimits
from credspec.sockets.peers import Peer

# More would be of no use, and programs that are started may walk through all of them.
_MOST_DESCRIPTORS: Final = 65536
_SPARE_DESCRIPTORS: Final = 128


class Refusal(Enum):
    """Why a connection was closed at once."""

    NOT_PERMITTED = "may not connect"
    TOO_MANY = "has too many open connections"
    FULL = "found too many open connections of all"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """How many connections may be open, and how many may come.

    `total` may be open at a time, of which `reserved` are for root and this process's own user;
    each other user may have `per_peer` (default: a quarter of what is not reserved), of which
    `active` are served at a time (default: all). Each may make `burst` at once and `rate` a second
    from then on. Those on top of `active` and of the rate wait, unread, and count as open.
    """

    total: int
    reserved: int = -1
    per_peer: int = -1
    active: int = -1
    rate: float = 100.0
    burst: int = 200

    @property
    def shared(self) -> int:
        """How many may be open of all users without a reservation."""
        reserved = self.total // 4 if self.reserved < 0 else self.reserved
        return max(1, self.total - reserved)

    @property
    def each(self) -> int:
        """How many may be open of one user without a reservation."""
        return max(1, self.shared // 4 if self.per_peer < 0 else min(self.per_peer, self.shared))

    @property
    def served(self) -> int:
        """How many may be served at a time of one user without a reservation."""
        return self.each if self.active < 0 else max(1, min(self.active, self.each))


def is_privileged(peer: Peer) -> bool:
    """Return whether the peer is root or the user that this process runs as."""
    return not peer.address and peer.uid in {0, os.geteuid()}


def anybody(peer: Peer) -> bool:
    """Return True: only the socket's permissions decide who may connect."""
    del peer
    return True


class Admission:
    """Decides on connections, one after another; sockets are not its concern.

    `may_connect` and `privileged` must be quick and must not raise.
    """

    def __init__(
        self,
        limits: ConnectionLimits,
        may_connect: Callable[[Peer], bool] = anybody,
        *,
        privileged: Callable[[Peer], bool] = is_privileged,
        clock: Clock = time.monotonic,
    ) -> None:
        self.limits: Final = limits
        self._may_connect = may_connect
        self._privileged = privileged
        self._rates: RateLimits[int | str] = RateLimits(limits.rate, limits.burst, clock=clock)
        self._open: Counter[int | str] = Counter()
        self._shared = 0

    def admit(self, peer: Peer) -> Refusal | float:
        """Count a new connection as open; return after how many seconds it may be served.

        A connection that is refused does not count.
        """
        if not self._may_connect(peer):
            return Refusal.NOT_PERMITTED
        if self._privileged(peer):
            if self.open_connections >= self.limits.total:
                return Refusal.FULL
            self._open[peer.key] += 1
            return 0.0
        if self._open[peer.key] >= self.limits.each:
            return Refusal.TOO_MANY
        if self._shared >= self.limits.shared or self.open_connections >= self.limits.total:
            return Refusal.FULL
        self._open[peer.key] += 1
        self._shared += 1
        return self._rates.borrow(peer.key)

    def most_served(self, peer: Peer) -> int:
        """Return how many connections of a peer may be served at a time."""
        return self.limits.total if self._privileged(peer) else self.limits.served

    def release(self, peer: Peer) -> None:
        """Count a connection that was admitted as closed."""
        self._open[peer.key] -= 1
        if self._open[peer.key] <= 0:
            del self._open[peer.key]
        if not self._privileged(peer):
            self._shared -= 1

    @property
    def open_connections(self) -> int:
        """How many connections are open."""
        return self._open.total()

    def open_of(self, peer: Peer) -> int:
        """Return how many connections a peer has open."""
        return self._open.get(peer.key, 0)


class Slot:
    """An admitted connection's share of the limits."""

    __slots__ = ("_admission", "_is_released", "ended", "peer")

    def __init__(self, admission: Admission, peer: Peer) -> None:
        self._admission = admission
        self._is_released = False
        self.ended: Callable[[Peer], None] | None = None
        self.peer: Final = peer

    def release(self) -> None:
        """Give it back; to be called when the connection is closed, more than once does no harm."""
        if not self._is_released:
            self._is_released = True
            self._admission.release(self.peer)
            if self.ended is not None:
                self.ended(self.peer)


class AdmissionReport(NamedTuple):
    """Something to log: at most a few of a kind and a peer a minute.

    `refusal` says why `peer` was refused; both are None if connections cannot be accepted for
    `reason`. `suppressed` counts the reports like it of the last minute that were not made. A
    report with that number only is of more peers than were told apart.
    """

    peer: Peer | None = None
    refusal: Refusal | None = None
    reason: str = ""
    suppressed: int = 0

    def __str__(self) -> str:
        if self.refusal is not None:
            text = f"{self.peer} {self.refusal.value}"
        elif self.reason:
            text = f"cannot accept connections: {self.reason}"
        else:
            text = "other peers were refused"
        return f"{text} ({self.suppressed} times more)" if self.suppressed else text


def affordable_connections(wanted: int, *, descriptors_each: int = 1) -> int:
    """Raise the limit of open files; return how many connections that allows, at most `wanted`.

    A connection needs `descriptors_each`; the process has others, for which some are kept.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    has = most if soft == resource.RLIM_INFINITY else soft
    return max(1, min(wanted, (has - _SPARE_DESCRIPTORS) // descriptors_each))
