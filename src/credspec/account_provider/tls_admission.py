"""Connections before their TLS handshake: cheap to take, few at a time, and the newest first.

Nobody is known before the handshake has ended, and it costs this process more than the other side.
So nothing is begun before the first bytes are there. Of each address, and of all, so many may be
unfinished; a new one then takes the turn of the oldest, which has had more time than an honest
client needs. So many handshakes begin a second. Addresses from which a client with a certificate
came before have a share of their own.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, cast

from credspec.rate_limit import Throttle, TokenBucket
from credspec.sockets.admission import (
    Admission,
    AdmissionReport,
    ConnectionLimits,
    ConnectionListener,
    Slot,
)
from credspec.sockets.peers import Peer

_HANDSHAKE: Final = b"\x16"  # the content type of the first record: RFC 8446 5.1
_TICK_SECONDS: Final = 0.01
_MOST_KNOWN: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeLimits:
    """How many connections may have no finished handshake, and for how many seconds.

    `total` of all addresses and `each` of one; `rate` handshakes begin a second, `burst` at once.
    Addresses that are known have as much again.
    """

    total: int = 256
    each: int = 64
    seconds: float = 5.0
    rate: float = 500.0
    burst: int = 100


@dataclass(slots=True, eq=False)
class _Unfinished:
    """A connection that waits for its first bytes, or for its turn, or shakes hands."""

    connection: socket.socket
    slot: Slot
    timer: asyncio.TimerHandle | None = None
    task: asyncio.Task[None] | None = None


@dataclass(slots=True)
class _Queue:
    """The connections without a finished handshake of known addresses, or of the others."""

    bucket: TokenBucket
    unfinished: OrderedDict[Slot, _Unfinished] = field(default_factory=OrderedDict)
    ready: OrderedDict[Slot, _Unfinished] = field(default_factory=OrderedDict)


class TlsAdmission:
    """Takes connections of listening sockets, and has handshakes begun.

    `begin(connection, slot)` takes a connection over and returns the task that serves it to its
    end. The task calls `finished(slot)` as soon as the client has shown its certificate. `report`
    is called for what should be logged, a few times a minute.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        begin: Callable[[socket.socket, Slot], asyncio.Task[None]],
        *,
        connections: int,
        report: Callable[[AdmissionReport], None],
        limits: HandshakeLimits | None = None,
    ) -> None:
        self._limits = limits or HandshakeLimits()
        self._begin = begin
        self._report = report
        self._loop = asyncio.get_running_loop()
        rate, burst, now = self._limits.rate, self._limits.burst, self._loop.time()
        self._known: OrderedDict[str, None] = OrderedDict()
        self._queues = {known: _Queue(TokenBucket(rate, burst, now)) for known in (True, False)}
        self._by_address: dict[str, OrderedDict[Slot, _Unfinished]] = {}
        self._tick: asyncio.TimerHandle | None = None
        self._throttle: Throttle[str] = Throttle(clock=self._loop.time)
        # Shares and rates are decided here.
        unlimited = ConnectionLimits(
            total=connections, reserved=0, per_peer=connections, rate=1e9, burst=1 << 30
        )
        admission = Admission(unlimited, privileged=lambda _: False)
        self._listeners = [
            ConnectionListener(each, self._connected, admission, report=report)
            for each in listeners
        ]

    def start(self) -> None:
        """Take connections from now on."""
        for each in self._listeners:
            each.start()

    def close(self) -> None:
        """Take no more, and close those without a finished handshake."""
        for listener in self._listeners:
            listener.close()
        if self._tick is not None:
            self._tick.cancel()
        for queue in self._queues.values():
            for each in list(queue.unfinished.values()):
                self._drop(each)

    def finished(self, slot: Slot) -> None:
        """Note that a client has shown its certificate: its address is known from now on."""
        self._forget(slot)
        self._known[slot.peer.address] = None
        self._known.move_to_end(slot.peer.address)
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)

    @property
    def unfinished(self) -> int:
        """How many have no finished handshake."""
        return sum(len(queue.unfinished) for queue in self._queues.values())

    def _connected(self, connection: socket.socket, slot: Slot) -> None:
        address = slot.peer.address
        queue = self._queues[address in self._known]
        own = self._by_address.get(address)
        if own is not None and len(own) >= self._limits.each:
            self._give_up(next(iter(own.values())))
        # Not only otherwise: the one given up may be from before its address was known.
        if len(queue.unfinished) >= self._limits.total:
            self._give_up(next(iter(queue.unfinished.values())))
        each = queue.unfinished[slot] = _Unfinished(connection, slot)
        self._by_address.setdefault(address, OrderedDict())[slot] = each
        each.timer = self._loop.call_later(self._limits.seconds, self._drop, each)
        self._loop.add_reader(connection.fileno(), self._readable, queue, each)

    def _readable(self, queue: _Queue, each: _Unfinished) -> None:
        self._loop.remove_reader(each.connection.fileno())
        try:
            first = each.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            first = b""
        if first != _HANDSHAKE:
            self._drop(each)
            return
        queue.ready[each.slot] = each
        self._begin_some()

    def _begin_some(self) -> None:
        """Begin handshakes, those of the newest first: they have the most time left."""
        waits = False
        for queue in self._queues.values():
            while queue.ready and queue.bucket.take(self._loop.time()):
                slot, each = queue.ready.popitem()
                each.task = self._begin(each.connection, slot)
                each.task.add_done_callback(partial(self._ended, slot))
            waits = waits or bool(queue.ready)
        if waits and self._tick is None:
            self._tick = self._loop.call_later(_TICK_SECONDS, self._ticked)

    def _ticked(self) -> None:
        self._tick = None
        self._begin_some()

    def _ended(self, slot: Slot, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._report(AdmissionReport(slot.peer, reason=type(error).__name__))
        self._forget(slot)
        slot.release()

    def _drop(self, each: _Unfinished) -> None:
        """Close a connection whose handshake has not ended."""
        self._forget(each.slot)
        if each.task is not None:
            serving = cast("Coroutine[Any, Any, None]", each.task.get_coro())
            if inspect.getcoroutinestate(serving) == inspect.CORO_CREATED:
                each.connection.close()  # it will not begin, and so not close it
            each.task.cancel()
            return
        self._loop.remove_reader(each.connection.fileno())
        each.connection.close()
        each.slot.release()

    def _forget(self, slot: Slot) -> None:
        """Count a connection no more among those without a finished handshake."""
        for queue in self._queues.values():
            each = queue.unfinished.pop(slot, None)
            queue.ready.pop(slot, None)
            if each is not None and each.timer is not None:
                each.timer.cancel()
        own = self._by_address.get(slot.peer.address)
        if own is not None:
            own.pop(slot, None)
            if not own:
                del self._by_address[slot.peer.address]

    def _give_up(self, each: _Unfinished) -> None:
        """Drop a connection for a newer one."""
        address = each.slot.peer.address
        self._drop(each)
        for suppressed in self._throttle.take_suppressed():
            peer = Peer(address=suppressed.key) if suppressed.key else None
            self._report(AdmissionReport(peer, reason=_GIVEN_UP, suppressed=suppressed.count))
        if self._throttle.allows(address):
            self._report(AdmissionReport(Peer(address=address), reason=_GIVEN_UP))


_GIVEN_UP: Final = "an unfinished TLS handshake was given up for a newer one"
