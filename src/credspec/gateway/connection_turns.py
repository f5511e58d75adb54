"""Which open connections are served: so many at a time, and none may take the turns of all others.

Who is over its share, or finds all turns taken, waits. A turn that ends goes to root first, then to
the user whose waiting began first after the one that had the last.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from credspec.sockets.admission import Admission, ConnectionLimits, Refusal, is_privileged
from credspec.sockets.peers import Peer

_Waiting = deque[tuple[Peer, "asyncio.Future[None]"]]


class ConnectionTurns:
    """At most `total` turns; shares are those of `ConnectionLimits`."""

    def __init__(self, total: int) -> None:
        # Rates are limited where connections are accepted.
        limits = ConnectionLimits(total=total, rate=1e9, burst=1 << 30)
        self._admission = Admission(limits)
        self._waiting: OrderedDict[int | str, _Waiting] = OrderedDict()

    @asynccontextmanager
    async def turn(self, peer: Peer) -> AsyncIterator[None]:
        """Wait for a turn, and keep it while the block runs."""
        await self._begin(peer)
        try:
            yield
        finally:
            self._end(peer)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._waiting.values()))

    async def _begin(self, peer: Peer) -> None:
        # No connection gets ahead of others of the same user.
        if peer.key not in self._waiting and not self._is_refused(peer):
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(peer.key, deque()).append((peer, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._end(peer)  # it was given just before
            raise

    def _is_refused(self, peer: Peer) -> bool:
        return isinstance(self._admission.admit(peer), Refusal)

    def _end(self, peer: Peer) -> None:
        self._admission.release(peer)
        for key in sorted(self._waiting, key=lambda key: not self._is_privileged(key)):
            self._let_in(key)

    def _is_privileged(self, key: int | str) -> bool:
        waiting = self._waiting[key]
        return bool(waiting) and is_privileged(waiting[0][0])

    def _let_in(self, key: int | str) -> None:
        """Give a user a turn if there is one for it."""
        waiting = self._waiting[key]
        while waiting and waiting[0][1].done():
            waiting.popleft()  # it has gone
        if waiting and not self._is_refused(waiting[0][0]):
            waiting.popleft()[1].set_result(None)
            self._waiting.move_to_end(key)
        if not waiting:
            del self._waiting[key]
