"""Who may connect to a listening socket, how often, and how many at a time.

`ConnectionListener` accepts connections in the event loop: few at a time, so that a flood of them
does not keep the loop from other work. It asks the kernel who connected (SO_PEERCRED of unix(7);
the address for TCP) before a byte is read. Who may not connect is answered and closed at once.
Those who may have so many open connections a user and in all, of which some are kept for root and
for this process's own user; and so many new ones a second, of which those on top wait without
holding up other users. Where descriptors or memory are short, accepting pauses and goes on.

    listener = ConnectionListener(
        sock, connected, Admission(ConnectionLimits(total=limit), may_connect), report=report
    )
    listener.start()

`connected(connection, slot)` takes the non-blocking connection over, and calls `slot.release()`
when it has closed it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Final

from credspec.rate_limit import Clock, RateLimits, Throttle
from credspec.sockets.peers import Peer, peer_of

# In one turn of the event loop: those that are refused cost little, and must not fill the queue.
_ADMITTED_AT_A_TIME: Final = 8
_ACCEPTS_AT_A_TIME: Final = 128
_PAUSE_SECONDS: Final = 0.1
# More would be of no use, and programs that are started may walk through all of them.
_MOST_DESCRIPTORS: Final = 65536
_SPARE_DESCRIPTORS: Final = 128
# The connection is at fault, not this process: accept(2).
_CONNECTION_LOST: Final = frozenset(
    {
        errno.ECONNABORTED,
        errno.EPROTO,
        errno.EPERM,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.EHOSTDOWN,
        errno.ENOPROTOOPT,
        errno.ETIMEDOUT,
    }
)


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


@dataclass(frozen=True, slots=True)
class AdmissionReport:
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


Connected = Callable[[socket.socket, Slot], None]
Answer = Callable[[Peer, Refusal], bytes]
_Reported = tuple[int | str, Refusal | None]


def no_answer(peer: Peer, refusal: Refusal) -> bytes:
    """Return nothing to say to those who are refused."""
    del peer, refusal
    return b""


class ConnectionListener:
    """Accepts connections of a listening socket in the running event loop, see the module.

    `answer` returns what a refused peer is sent before the close, as far as it can be sent without
    waiting. `report` is called for what should be logged. Neither may block.
    """

    def __init__(
        self,
        listener: socket.socket,
        connected: Connected,
        admission: Admission,
        *,
        report: Callable[[AdmissionReport], None],
        answer: Answer = no_answer,
        clock: Clock = time.monotonic,
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._connected = connected
        self._admission = admission
        self._answer = answer
        self._report = report
        self._throttle: Throttle[_Reported] = Throttle(clock=clock)
        self._waiting: dict[socket.socket, tuple[Slot, asyncio.TimerHandle]] = {}
        self._served: Counter[int | str] = Counter()
        self._queues: dict[int | str, deque[tuple[socket.socket, Slot]]] = {}
        self._is_closed = False
        self._pause: asyncio.TimerHandle | None = None
        self._summary: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Accept from now on."""
        asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept_some)

    def close(self) -> None:
        """Accept no more, and close what was not handed over yet; the listening socket stays."""
        self._is_closed = True
        if self._listener.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
        for handle in (self._pause, self._summary):
            if handle is not None:
                handle.cancel()
        self._pause = self._summary = None
        for connection, (slot, handle) in self._waiting.items():
            handle.cancel()
            connection.close()
            slot.release()
        self._waiting.clear()
        queued = [pair for queue in self._queues.values() for pair in queue]
        self._queues.clear()
        for connection, slot in queued:
            connection.close()
            slot.release()

    def _accept_some(self) -> None:
        admitted = 0
        for _ in range(_ACCEPTS_AT_A_TIME):
            if admitted == _ADMITTED_AT_A_TIME:
                return
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _CONNECTION_LOST:
                    continue
                self._pause_for(error)
                return
            try:
                admitted += self._accepted(connection)
            except OSError:
                connection.close()  # it has gone again

    def _accepted(self, connection: socket.socket) -> bool:
        """Take an accepted connection in, or refuse it; return whether it was taken in."""
        connection.setblocking(False)
        peer = peer_of(connection)
        verdict = self._admission.admit(peer)
        if isinstance(verdict, Refusal):
            with connection, suppress(OSError):
                self._tell(peer, verdict)
                connection.send(self._answer(peer, verdict), socket.MSG_NOSIGNAL)
            return False
        slot = Slot(self._admission, peer)
        if verdict <= 0:
            self._hand_over(connection, slot)
        else:
            loop = asyncio.get_running_loop()
            handle = loop.call_later(verdict, self._waited, connection)
            self._waiting[connection] = slot, handle
        return True

    def _waited(self, connection: socket.socket) -> None:
        slot, _ = self._waiting.pop(connection)
        self._hand_over(connection, slot)

    def _hand_over(self, connection: socket.socket, slot: Slot) -> None:
        """Let a connection be served, or queue it while its peer has enough that are."""
        key = slot.peer.key
        if self._is_closed:
            connection.close()
            slot.release()
            return
        if self._served[key] >= self._admission.most_served(slot.peer):
            self._queues.setdefault(key, deque()).append((connection, slot))
            return
        self._served[key] += 1
        slot.ended = self._ended
        try:
            self._connected(connection, slot)
        except BaseException:
            connection.close()
            slot.release()
            raise

    def _ended(self, peer: Peer) -> None:
        self._served[peer.key] -= 1
        if not self._served[peer.key]:
            del self._served[peer.key]
        queue = self._queues.get(peer.key)
        if queue:
            connection, slot = queue.popleft()
            if not queue:
                del self._queues[peer.key]
            # In a turn of its own: one that ends at once must not call for the next from here.
            asyncio.get_running_loop().call_soon(self._hand_over, connection, slot)

    def _pause_for(self, error: OSError) -> None:
        """Wait for others to give something back; what is reported of it is one line a minute."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listener.fileno())
        self._pause = loop.call_later(_PAUSE_SECONDS, self._go_on)
        self._tell(None, None, error.strerror or type(error).__name__)

    def _go_on(self) -> None:
        self._pause = None
        if self._listener.fileno() >= 0:
            self.start()

    def _tell(self, peer: Peer | None, refusal: Refusal | None, reason: str = "") -> None:
        key = peer.key if peer is not None else reason
        if self._throttle.allows((key, refusal)):
            self._report(AdmissionReport(peer, refusal, reason))
        if self._summary is None:
            delay = self._throttle.remaining() or 0.0
            self._summary = asyncio.get_running_loop().call_later(delay, self._summarize)

    def _summarize(self) -> None:
        self._summary = None
        for suppressed in self._throttle.take_suppressed():
            key, refusal = suppressed.key or ("", None)
            if refusal is None:
                report = AdmissionReport(reason=str(key), suppressed=suppressed.count)
            else:
                peer = Peer(uid=key) if isinstance(key, int) else Peer(address=key)
                report = AdmissionReport(peer, refusal, suppressed=suppressed.count)
            self._report(report)


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
