"""A program of a container that is out of its mind: it asks its KDC as often as it can.

It prints a line a second: datagrams, connections begun, answers of both.
"""

import os
import re
import socket
import struct
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

MOST_OPEN = 500
# No request, one that is announced and does not come, one of more than 64 KiB.
MESSAGES = (struct.pack(">I", 5) + b"\x6c\x03\x02\x01\x05", struct.pack(">I", 900) + b"\x6c",
            struct.pack(">I", 70_000) + bytes(1000))  # fmt: skip


def flood_udp(address: tuple[str, int], done: list[int]) -> None:
    flooding = socket.socket(type=socket.SOCK_DGRAM)
    flooding.setblocking(False)
    flooding.connect(address)
    while True:
        for _ in range(64):
            try:
                flooding.send(MESSAGES[0][4:])
                done[0] += 1
            except OSError:
                break
        try:
            while flooding.recv(4096):
                done[2] += 1
        except OSError:
            continue


def flood_tcp(address: tuple[str, int], done: list[int]) -> None:
    connections: deque[tuple[socket.socket, bytes]] = deque()
    while True:
        if len(connections) >= MOST_OPEN:
            for _ in range(MOST_OPEN // 2):
                old, message = connections.popleft()
                with suppress(OSError):
                    old.send(message)
                with suppress(OSError):
                    done[3] += bool(old.recv(4096))
                old.close()
        new = socket.socket()
        new.setblocking(False)
        new.connect_ex(address)
        done[1] += 1
        message = MESSAGES[done[1] % len(MESSAGES)]
        with suppress(OSError):  # not connected yet
            new.send(message)
        connections.append((new, message))


def main() -> None:
    conf = Path(os.environ["KRB5_CONFIG"]).read_text()
    port = int(re.findall(r"kdc = 127\.0\.0\.1:(\d+)", conf)[0])
    done = [0, 0, 0, 0]
    flood = flood_udp if os.fork() == 0 else flood_tcp
    threading.Thread(target=flood, args=(("127.0.0.1", port), done), daemon=True).start()
    while True:
        time.sleep(1)
        sys.stdout.write(f"{' '.join(map(str, done))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
