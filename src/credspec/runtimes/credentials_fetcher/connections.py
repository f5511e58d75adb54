"""Who may call: every connection is looked at before a byte of it reaches gRPC.

gRPC's own Unix socket tells its services nothing of who called. So ours accepts, asks the kernel
for the caller (SO_PEERCRED), and carries the bytes of those who may call to gRPC's socket in a
directory that only root can enter. Its end of each such connection is bound to a name that holds
the caller's numbers, and gRPC hands that name to the service as the peer's address.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Final

from credspec.agent.audit import Caller
from credspec.agent.events import Event, emit
from credspec.runtimes.docker_gateway.tunnel import tunnel

_MOST_CONNECTIONS: Final = 512
_CONNECT_SECONDS: Final = 5.0
_CALLER: Final = re.compile(r"unix:.*/c-(\d{1,10})-(\d{1,10})-\d+")


def caller_of(peer: str) -> Caller | None:
    """Return who called, from the address that gRPC gives; None if it came another way."""
    match = _CALLER.fullmatch(peer)
    return None if match is None else Caller(int(match[1]), int(match[2]))


@asynccontextmanager
async def guarded(
    listener: socket.socket, inner: Path, may_call: Callable[[int], bool]
) -> AsyncIterator[None]:
    """Carry the connections of those who may call to the socket `inner`, while the block runs."""
    running: set[asyncio.Task[None]] = set()
    accepting = asyncio.create_task(_accept(listener, inner, may_call, running))
    try:
        yield
    finally:
        accepting.cancel()
        for task in running:
            task.cancel()
        await asyncio.gather(accepting, *running, return_exceptions=True)


async def _accept(
    listener: socket.socket,
    inner: Path,
    may_call: Callable[[int], bool],
    running: set[asyncio.Task[None]],
) -> None:
    loop = asyncio.get_running_loop()
    listener.setblocking(False)
    numbers = count()
    while True:
        try:
            connection, _ = await loop.sock_accept(listener)
        except OSError:
            await asyncio.sleep(0.1)  # out of descriptors, or the caller has gone again
            continue
        connection.setblocking(False)
        caller = _credentials(connection)
        if not may_call(caller.uid) or len(running) >= _MOST_CONNECTIONS:
            emit(Event.CALLER_REFUSED, uid=caller.uid, pid=caller.pid, path=str(inner.parent))
            connection.close()
            continue
        task = asyncio.create_task(_carry(connection, caller, inner, next(numbers)))
        running.add(task)
        task.add_done_callback(running.discard)


def _credentials(connection: socket.socket) -> Caller:
    size = struct.calcsize("3i")
    pid, uid, _ = struct.unpack(
        "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    return Caller(uid, pid)


async def _carry(connection: socket.socket, caller: Caller, inner: Path, number: int) -> None:
    loop = asyncio.get_running_loop()
    name = inner.with_name(f"c-{caller.uid}-{caller.pid}-{number}")
    with connection, socket.socket(socket.AF_UNIX) as service:
        service.setblocking(False)
        try:
            service.bind(str(name))
            async with asyncio.timeout(_CONNECT_SECONDS):
                await loop.sock_connect(service, str(inner))
        except (OSError, TimeoutError) as error:
            emit(Event.REQUEST_FAILED, path=str(inner), error=str(error))
            return
        finally:
            # The name has been read, or nobody will.
            with suppress(OSError):
                os.unlink(name)  # noqa: PTH108 - must not wait for a thread
        await tunnel(connection, service)
