"""An agent that is simulated: it answers all of a method alike, and notes what it was asked."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from pathlib import Path
from typing import Any

GRANTED = b'HTTP/1.0 200 OK\r\n\r\n{"environment": {"KRB5CCNAME": "/run/credspec/krb5cc"}}'


class SimulatedAgent:
    """Listens at `path`; `asked` has method, path and body of each request.

    `answers` are those to methods that do not get `answer`.
    """

    def __init__(self, path: Path, answer: bytes = GRANTED) -> None:
        self.answer = answer
        self.answers = {"DELETE": b"HTTP/1.0 204 No Content\r\n\r\n"}
        self.asked: list[tuple[str, str, Any]] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                with self._listener.accept()[0] as taken:
                    self._answer(taken)

    def _answer(self, taken: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += taken.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        while len(body) < size:
            body += taken.recv(65536)
        method, path, version = head.split(b"\r\n")[0].decode().split()
        assert version == "HTTP/1.0"
        self.asked.append((method, path, json.loads(body) if body else None))
        taken.sendall(self.answers.get(method, self.answer))

    @property
    def methods(self) -> list[str]:
        """The methods of the requests, in their order."""
        return [method for method, *_ in self.asked]

    def close(self) -> None:
        """Go, also a second time."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
