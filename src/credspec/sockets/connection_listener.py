"""Accepts connections of a listening socket in the event loop, by the rules of an `Admission`.

Few are accepted at a time, and for a bounded time of the processor, so that a flood of them does
not keep the loop from other work on a slow host either. The kernel is asked who connected
(SO_PEERCRED of unix(7); the address for TCP) before a byte is read. Who may not connect is answered
and closed at once. Where descriptors or memory are short, accepting pauses and goes on.

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
import socket
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from credspec.rate_limit import Clock, Throttle
from credspec.sockets.admission import Admission, AdmissionReport, Refusal, Slot
from credspec.sockets.peers import Peer, peer_of

# In one turn of the event loop: those that are refused cost little, and must not fill the queue.
_ADMITTED_AT_A_TIME: Final = 8
_ACCEPTS_AT_A_TIME: Final = 128
_PROCESSOR_SECONDS_AT_A_TIME: Final = 0.02
_PAUSE_SECONDS: Final = 0.1
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
        processor_clock: Clock = time.thread_time,
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._connected = connected
        self._admission = admission
        self._answer = answer
        self._report = report
        self._processor_clock = processor_clock
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
        end = self._processor_clock() + _PROCESSOR_SECONDS_AT_A_TIME
        for number in range(_ACCEPTS_AT_A_TIME):
            if admitted == _ADMITTED_AT_A_TIME or (number and self._processor_clock() >= end):
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
