"""Let a namespace's interface send late: a slow link, whatever the kernel has of queues.

The interface's frames are redirected to a process that holds each one back and then sends it past
the redirection. Run as a program inside the namespace, ``python -m credspec.lab.delayed_link
INTERFACE MILLISECONDS``. Not netem, which many small kernels lack.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import Final, NoReturn

from credspec.errors import CredspecError
from credspec.lab.namespaces import Plan, command_in
from credspec.lab.network import ip
from credspec.lab.service import Service, wait_for

_TAP: Final = "delay"
_TUNSETIFF: Final = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_SOL_PACKET, _PACKET_QDISC_BYPASS = 263, 20
_FRAME_BYTES: Final = 65536


@dataclass(frozen=True, slots=True)
class DelayedLink:
    """An interface of a namespace; `service` is the process that holds its frames back."""

    namespace: str
    interface: str
    service: Service

    def delay(self, milliseconds: int) -> None:
        """Send all that leaves the interface so much later; 0 ends that.

        Raises:
            CredspecError: `lab-network`, `lab-timeout`.
        """
        self._tc("qdisc", "del", "dev", self.interface, "clsact", check=False)
        self.service.stop()
        if milliseconds <= 0:
            return
        program = [sys.executable, "-m", __name__, self.interface, str(milliseconds)]
        plan = Plan(netns=self.namespace, own_processes=True)
        self.service.start(command_in(plan, program), dict(os.environ))
        wait_for(self._is_ready, "the delay", self.service.log)
        self._tc("qdisc", "add", "dev", self.interface, "clsact")
        self._tc(
            *("filter", "add", "dev", self.interface, "egress", "protocol", "all"),
            *("u32", "match", "u32", "0", "0"),
            *("action", "mirred", "egress", "redirect", "dev", _TAP),
        )

    def _is_ready(self) -> bool:
        with contextlib.suppress(CredspecError):
            return ",UP" in ip("-n", self.namespace, "link", "show", _TAP)
        return False

    def _tc(self, *arguments: str, check: bool = True) -> None:
        command = ["tc", "-n", self.namespace, *arguments]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if check and result.returncode != 0:
            raise CredspecError.of(
                "lab-network",
                f"{' '.join(command)}: {result.stderr.strip()}",
                where="lab",
                remedy="a delay needs root and the package iproute2",
            )


def _hold_back(interface: str, seconds: float) -> NoReturn:
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", _TAP.encode(), _IFF_TAP | _IFF_NO_PI))
    out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    # Past the redirection, which would bring the frame back here.
    out.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
    out.bind((interface, 0))
    # Without an address of its own it sends nothing of its own.
    ip("link", "set", "dev", _TAP, "addrgenmode", "none", "up")
    held: deque[tuple[float, bytes]] = deque()
    while True:
        wait = max(0.0, held[0][0] - time.monotonic()) if held else None
        readable, _, _ = select.select([tap], [], [], wait)
        if readable:
            held.append((time.monotonic() + seconds, os.read(tap, _FRAME_BYTES)))
        while held and held[0][0] <= time.monotonic():
            # A link that is down loses what is sent.
            with contextlib.suppress(OSError):
                out.send(held.popleft()[1])


if __name__ == "__main__":
    _hold_back(sys.argv[1], int(sys.argv[2]) / 1000)
