"""What a service tells the service manager: sd_notify(3) and its watchdog."""

from __future__ import annotations

import asyncio
import os
import socket
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from credspec.errors import CredspecError


def store_descriptors(name: str, descriptors: Sequence[int]) -> bool:
    """Let the service manager keep descriptors over a restart (FDSTORE=1 of sd_notify(3)).

    They come back under `name`; return whether anybody listens.
    """
    return notify("FDSTORE=1", f"FDNAME={name}", "FDPOLL=0", descriptors=descriptors)


def forget_descriptors(name: str) -> None:
    """Let the service manager close what it keeps under a name."""
    notify("FDSTOREREMOVE=1", f"FDNAME={name}")


def notify(*lines: str, descriptors: Sequence[int] = ()) -> bool:
    """Send ``NAME=VALUE`` lines, such as ``READY=1``; return whether anybody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    # Half of a pair, since the agent's unit forbids it to create Unix sockets otherwise.
    sender, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, other:
        try:
            sender.sendmsg(
                ["\n".join(lines).encode()],
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))]
                if descriptors
                else [],
                0,
                "\0" + address[1:] if address.startswith("@") else address,
            )
        except OSError:
            return False
    return True


@contextmanager
def failure_in_status() -> Iterator[None]:
    """Let ``systemctl status`` show in one line why the block failed."""
    try:
        yield
    except CredspecError as error:
        notify(f"STATUS={'; '.join(str(error).splitlines())}")
        raise


def watchdog_seconds() -> float | None:
    """Return how often the service manager wants to hear from us, None if it does not."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdecimal() and int(microseconds) else None


async def keep_watchdog_quiet() -> None:
    """Tell the service manager again and again that the event loop turns; ends if nobody asks."""
    seconds = watchdog_seconds()
    while seconds is not None:
        notify("WATCHDOG=1")
        await asyncio.sleep(seconds / 3)
