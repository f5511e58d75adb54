"""Asks a service of credspec whether it answers, as the images' HEALTHCHECK; stdlib only.

Usage: healthcheck.py SOCKET PATH
"""

from __future__ import annotations

import socket
import sys

SECONDS = 8.0


def main() -> int:
    """Ask; return 0 if the answer is a 200."""
    path, target = sys.argv[1:]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(SECONDS)
        try:
            connection.connect(path)
            connection.sendall(f"GET {target} HTTP/1.0\r\nHost: credspec\r\n\r\n".encode())
            status = connection.makefile("rb").readline(200).decode("ascii", "replace").strip()
        except OSError as error:
            sys.stdout.write(f"{path} does not answer: {error}\n")
            return 1
    sys.stdout.write(f"{path}: {status}\n")
    return 0 if status.split()[1:2] == ["200"] else 1


if __name__ == "__main__":
    sys.exit(main())
