"""Who may call: every connection is checked before a byte of it reaches gRPC.

gRPC's own Unix socket tells its services nothing of who called. So ours accepts, asks the kernel
for the caller (SO_PEERCRED), and carries the frames of those who may call to gRPC's socket in a
directory that only root can enter. Its end of each such connection is bound to a name that holds
the caller's numbers, and gRPC hands that name to the service as the peer's address.

Each user other than root may have so many connections, frames a second, and bytes of requests under
way. A connection over which a password came is ended after the call: gRPC keeps what it has read
of an open one. A first GOAWAY says so, while calls are still taken; a second one, a moment later,
says which were handled (RFC 9113 6.8). A call that a client begins even then is repeated by its
gRPC library on a new connection, but only once in its life.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

from credspec.agent.audit import Caller
from credspec.agent.doors.credentials_fetcher.answer_delivery import (
    ANSWER_BYTES,
    AnswerDelivery,
    Undo,
)
from credspec.agent.doors.credentials_fetcher.http2_frames import (
    ENHANCE_YOUR_CALM,
    LAST_POSSIBLE_STREAM,
    NO_ERROR,
    ClientFrames,
    FrameError,
    ServerFrames,
    goaway,
)
from credspec.rate_limit import RateLimits
from credspec.service.events import Event, emit
from credspec.sockets.admission import (
    Admission,
    AdmissionReport,
    ConnectionLimits,
    ConnectionListener,
    Slot,
    affordable_connections,
    is_privileged,
)
from credspec.sockets.tunnel import end_politely

_MOST_CONNECTIONS: Final = 512
# The client, the connection to gRPC, gRPC's end of it, and one to spare.
_DESCRIPTORS_EACH: Final = 4
_CHUNK: Final = 16 * 1024
_CALLER: Final = re.compile(r"unix:.*/c-(\d{1,10})-(\d{1,10})-(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    """What a caller may take, in seconds, bytes, and numbers a second.

    `handshake` is how long the first frames may take, `request` a frame or request once it was
    begun, `idle` how long a connection stays open without a call, `answer` how long a client may
    take to read, `notice` how long calls are taken once it was said that the connection ends. Of
    requests under way each user but root may have `user_bytes`, all of them `shared_bytes`, and
    root too `total_bytes`. `frames` may come a second, `burst` at once.
    """

    handshake: float = 10.0
    request: float = 10.0
    idle: float = 60.0
    answer: float = 30.0
    connect: float = 5.0
    notice: float = 0.1
    user_bytes: int = 8 << 20
    shared_bytes: int = 32 << 20
    total_bytes: int = 64 << 20
    frames: float = 500.0
    burst: int = 4000


def caller_of(peer: str) -> Caller | None:
    """Return who called, from the address that gRPC gives; None if it came otherwise."""
    match = _CALLER.fullmatch(peer)
    return None if match is None else Caller(int(match[1]), int(match[2]))


class CallerConnections:
    """The connections of those who may call, each carried to gRPC's socket `inner`."""

    def __init__(self, inner: Path, limits: CallLimits | None = None) -> None:
        self.inner: Final = inner
        self.limits: Final = limits or CallLimits()
        self._rates: RateLimits[int] = RateLimits(self.limits.frames, self.limits.burst)
        self._numbers = count()
        self._carried: dict[int, _Carried] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._user_bytes: Counter[int] = Counter()
        self._shared_bytes = self._total_bytes = 0

    @asynccontextmanager
    async def accepting(
        self, listener: socket.socket, may_call: Callable[[int], bool]
    ) -> AsyncIterator[None]:
        """Accept connections while the block runs; those that are open are closed at its end."""
        limit = affordable_connections(_MOST_CONNECTIONS, descriptors_each=_DESCRIPTORS_EACH)
        admission = Admission(ConnectionLimits(total=limit), lambda peer: may_call(peer.uid))
        accepting = ConnectionListener(listener, self._connected, admission, report=self._report)
        accepting.start()
        try:
            yield
        finally:
            accepting.close()
            running = list(self._running)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def served(self, peer: str, is_secret: bool) -> None:
        """Note that a call reached the service, from the address that gRPC gives.

        If its request may hold a secret, the connection ends once its calls are answered. So does
        one with calls that never reached the service: nobody knows what was in those.
        """
        match = _CALLER.fullmatch(peer)
        carried = None if match is None else self._carried.get(int(match[3]))
        if carried is not None:
            carried.served += 1
            if is_secret:
                carried.drain()

    def expect(self, peer: str, lease: str, undo: Undo) -> None:
        """Note that an answer with the id of a new lease is being sent to a peer.

        `undo` is called, once, if the answer does not reach the client.
        """
        match = _CALLER.fullmatch(peer)
        carried = None if match is None else self._carried.get(int(match[3]))
        if carried is None:
            undo()
        else:
            carried.expect(lease, undo)

    async def turn(self, slot: Slot) -> None:
        """Wait until a client's next frames may be looked at: all of a user's, one after another.

        Many connections that have waited for the same moment must not all go on in it.
        """
        while not is_privileged(slot.peer) and (  # noqa: ASYNC110 - one must go on, not all
            delay := self._rates.delay(slot.peer.uid)
        ):
            await asyncio.sleep(delay)

    def count(self, slot: Slot, frames: int) -> None:
        """Count frames that were looked at."""
        if not is_privileged(slot.peer):
            self._rates.borrow(slot.peer.uid, frames)

    def account(self, slot: Slot, more: int) -> None:
        """Count bytes of requests under way.

        Raises:
            FrameError: they are too many.
        """
        uid, limits = slot.peer.uid, self.limits
        privileged = is_privileged(slot.peer)
        self._total_bytes += more
        if privileged:
            too_many = self._total_bytes > limits.total_bytes
        else:
            self._shared_bytes += more
            self._user_bytes[uid] += more
            too_many = (
                self._user_bytes[uid] > limits.user_bytes
                or self._shared_bytes > limits.shared_bytes
            )
            if self._user_bytes[uid] <= 0:
                del self._user_bytes[uid]
        if too_many and more > 0:
            raise FrameError("too many bytes of requests at a time")

    def _report(self, report: AdmissionReport) -> None:
        peer = report.peer
        if peer is None:
            emit(Event.REQUEST_FAILED, path=str(self.inner.parent), error=str(report))
            return
        emit(
            Event.CALLER_REFUSED,
            uid=peer.uid,
            pid=peer.pid,
            path=str(self.inner.parent),
            error=str(report),
        )

    def _connected(self, connection: socket.socket, slot: Slot) -> None:
        number = next(self._numbers)
        carried = self._carried[number] = _Carried(self, connection, slot, number)
        task = asyncio.create_task(carried.run())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(lambda _: self._carried.pop(number, None))


class _Carried:
    """One connection: the client's socket, and the one to gRPC."""

    def __init__(
        self, of: CallerConnections, connection: socket.socket, slot: Slot, number: int
    ) -> None:
        self._of = of
        self._limits = of.limits
        self._client = connection
        self._slot = slot
        self._number = number
        self._service = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._loop = asyncio.get_running_loop()
        self.served = 0
        self._asked = ClientFrames(clock=self._loop.time)
        self._answered = ServerFrames(ANSWER_BYTES)
        self._delivery = AnswerDelivery()
        self._is_in_step = True
        self._counted = 0
        self._since = self._loop.time()
        self._unsaid: list[bytes] = []
        self._has_said_goodbye = False
        self._writing = asyncio.Lock()
        self._drained = asyncio.Event()
        self._draining: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Carry until one side ends, or is ended."""
        with self._client, self._service:
            try:
                if await self._connect():
                    await self._carry()
            finally:
                self._delivery.end()
                self._slot.release()
                self._account(-self._counted)

    def expect(self, lease: str, undo: Undo) -> None:
        """Note that an answer with the id of a new lease is being sent to the client."""
        self._delivery.expect(lease, undo, is_idle=self._asked.is_idle)

    async def _connect(self) -> bool:
        peer, inner = self._slot.peer, self._of.inner
        name = inner.with_name(f"c-{peer.uid}-{peer.pid}-{self._number}")
        try:
            self._service.bind(str(name))
            async with asyncio.timeout(self._limits.connect):
                await self._loop.sock_connect(self._service, str(inner))
        except (OSError, TimeoutError) as error:
            emit(Event.REQUEST_FAILED, path=str(inner), error=str(error))
            return False
        finally:
            # The name has been read, or nobody will.
            with suppress(OSError):
                os.unlink(name)  # noqa: PTH108 - must not wait for a thread
        return True

    async def _carry(self) -> None:
        steps = self._upwards(), self._downwards(), self._drained.wait()
        tasks = {asyncio.ensure_future(step) for step in steps}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if self._draining is not None:
                tasks.add(self._draining)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        # gRPC forgets what it has read of a connection that is closed.
        self._service.close()
        self._account(-self._counted)
        await end_politely(self._client, self._look_for_resets)

    def drain(self) -> None:
        """Take no more calls after a moment, and end when those under way are answered."""
        if self._draining is None:
            self._draining = self._loop.create_task(self._drain())

    async def _drain(self) -> None:
        await self._say(goaway(LAST_POSSIBLE_STREAM, NO_ERROR))
        await asyncio.sleep(self._limits.notice)
        self._asked.is_draining = True
        await self._say_goaway(NO_ERROR)

    async def _upwards(self) -> None:
        """Hand on what the client sends, until it ends, is too slow, or sends too much."""
        buffer = bytearray(_CHUNK)
        while True:
            try:
                async with asyncio.timeout_at(self._deadline()):
                    length = await self._loop.sock_recv_into(self._client, buffer)
            except TimeoutError:
                if self._loop.time() < self._deadline():
                    continue  # something came to an end meanwhile
                await self._say_goaway(NO_ERROR if self._asked.is_idle else ENHANCE_YOUR_CALM)
                return
            except OSError:
                return
            if not length or not await self._hand_on(buffer, length):
                return
            # Neither side may ever wait, and others want their turn.
            await asyncio.sleep(0)

    async def _hand_on(self, buffer: bytearray, length: int) -> bool:
        before = self._asked.count
        self._is_in_step = False
        try:
            await self._of.turn(self._slot)
            self._is_in_step = True
            with memoryview(buffer) as view, view[:length] as data:
                frames = self._asked.feed(data)
            self._account(self._asked.request_bytes - self._counted)
        except FrameError as error:
            peer = self._slot.peer
            emit(Event.REQUEST_FAILED, uid=peer.uid, pid=peer.pid, error=str(error))
            await self._say_goaway(error.code)
            return False
        finally:
            self._of.count(self._slot, self._asked.count - before)
            # It may hold a password, and the next may come tomorrow.
            buffer[:length] = bytes(length)
        self._note_resets()
        self._look_whether_drained()
        try:
            await self._loop.sock_sendall(self._service, frames)
        except OSError:
            return False
        return True

    def _note_resets(self) -> None:
        for stream in self._asked.take_resets():
            self._delivery.reset(stream)

    def _look_for_resets(self, data: bytes) -> None:
        """Look at what a client sends that is handed on no more, for calls that it gives up."""
        # What was taken when the connection ended, and not looked at, is missing in between.
        if self._is_in_step:
            with suppress(FrameError):
                self._asked.feed(memoryview(data))
            self._note_resets()

    async def _downwards(self) -> None:
        """Hand on what gRPC answers, until it ends or the client does not read."""
        while True:
            try:
                data = await self._loop.sock_recv(self._service, _CHUNK)
                if not data:
                    return
                async with self._writing, asyncio.timeout(self._limits.answer):
                    with memoryview(data) as view:
                        ended = self._answered.feed(view)
                    await self._loop.sock_sendall(self._client, data)
            except (OSError, TimeoutError):
                return
            for stream in ended:
                self._delivery.written(stream, self._answered.take_answer(stream))
                self._asked.end_call(stream)
            if ended:
                self._account(self._asked.request_bytes - self._counted)
                self._since = self._loop.time()
            await self._say()
            self._look_whether_drained()
            await asyncio.sleep(0)

    async def _say_goaway(self, code: int) -> None:
        """Say that no later calls are handled, unless that was said."""
        if not self._has_said_goodbye:
            self._has_said_goodbye = True
            await self._say(goaway(self._asked.last_stream, code))
        self._look_whether_drained()

    async def _say(self, *frames: bytes) -> None:
        """Send frames of our own; while one of gRPC's is under way, after that."""
        self._unsaid += frames
        if not self._unsaid:
            return
        with suppress(OSError, TimeoutError):
            async with self._writing, asyncio.timeout(self._limits.answer):
                if self._answered.is_between_frames:
                    sent = len(self._unsaid)
                    try:
                        await self._loop.sock_sendall(self._client, b"".join(self._unsaid))
                    finally:
                        del self._unsaid[:sent]

    def _look_whether_drained(self) -> None:
        if not self._asked.is_idle:
            return
        self._delivery.look(is_idle=True)
        if self._asked.calls > self.served:
            self.drain()
        if self._asked.is_draining and self._has_said_goodbye and not self._unsaid:
            self._drained.set()

    def _deadline(self) -> float:
        """Return when the client has had enough time for what it owes."""
        if not self._asked.is_greeted:
            return self._since + self._limits.handshake
        incomplete = self._asked.incomplete_since()
        if incomplete is not None:
            return incomplete + self._limits.request
        if self._asked.is_idle:
            return self._since + self._limits.idle
        # gRPC and the service have deadlines for the calls that are under way.
        return self._loop.time() + self._limits.idle

    def _account(self, more: int) -> None:
        self._counted += more
        self._of.account(self._slot, more)
