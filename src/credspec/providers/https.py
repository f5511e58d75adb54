"""HTTPS to a provider's server: one question, one answer, all of it within a deadline.

The client libraries of services get their answers through this, too. It asks the server that it
was made for and no other, follows no redirect, uses no proxy, and reads no more than an account
can have.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from credspec.errors import UnreachableError
from credspec.providers.answers import MAX_ANSWER_BYTES, refuse_answer
from credspec.providers.deadline import Deadline
from credspec.providers.server_url import HTTPS_PORT, Server
from credspec.providers.tls import tls_error

# What concerns a single connection, or is said here.
_OWN_HEADERS: Final = frozenset({"accept-encoding", "connection", "host", "transfer-encoding"})


class Answer(NamedTuple):
    """What a server answered; `body` has at most `MAX_ANSWER_BYTES`."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpsClient:
    """Asks one `server`, with a TLS context of `credspec.providers.tls`; `where` is for errors."""

    server: Server
    context: ssl.SSLContext
    deadline: Deadline
    where: str

    def ask(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] = MappingProxyType({}),
        body: bytes | None = None,
    ) -> Answer:
        """Ask, and return whatever the server answers.

        Raises:
            NotPermittedError: `host-account-tls`.
            UnreachableError: `host-account-unreachable`, `host-account-timeout`.
            CredspecError: `host-account-answer`: too large, or encoded.
        """
        connection = _Connection(self)
        given = {k: v for k, v in headers.items() if k.lower() not in _OWN_HEADERS}
        try:
            connection.request(method, target, body, {**given, "Connection": "close"})
            with connection.getresponse() as response:
                content = response.read(MAX_ANSWER_BYTES + 1)
                answer = Answer(response.status, response.reason, response.getheaders(), content)
        except ssl.SSLError as error:
            raise tls_error(error, self.where, str(self.server)) from None
        except TimeoutError:
            raise UnreachableError.of(
                "host-account-timeout",
                f"{self.server}: no whole answer within {self.deadline.seconds:g} s",
                where=self.where,
                remedy="see whether the service behind it answers",
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError.of(
                "host-account-unreachable",
                f"{self.server}: {type(error).__name__}",
                where=self.where,
                remedy="see whether it runs, and whether this host reaches it",
            ) from None
        finally:
            connection.end()
        if len(content) > MAX_ANSWER_BYTES:
            refuse_answer(self.where, f"more than {MAX_ANSWER_BYTES} bytes")
        if any(k.lower() == "content-encoding" and v != "identity" for k, v in answer.headers):
            refuse_answer(self.where, "an encoded answer")
        return answer


class _Connection(http.client.HTTPConnection):
    default_port = HTTPS_PORT

    def __init__(self, client: HttpsClient) -> None:
        super().__init__(client.server.host, client.server.port)
        self._client = client
        self._secured: ssl.SSLSocket | None = None

    def end(self) -> None:
        """Close the connection."""
        self.close()
        if self._secured is not None:
            with suppress(OSError):
                self._secured.close()

    def connect(self) -> None:
        client = self._client
        plain = _connected(client.server, client.deadline)
        try:
            self._secured = secured = client.context.wrap_socket(
                plain, server_hostname=client.server.host, do_handshake_on_connect=False
            )
        except BaseException:
            plain.close()
            raise
        self.sock = _TimedSocket(secured, client.deadline)
        secured.settimeout(client.deadline.left())
        secured.do_handshake()


def _connected(server: Server, deadline: Deadline) -> socket.socket:
    addresses = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
    failure: OSError | None = None
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        connection = socket.socket(family, kind, protocol)
        try:
            # The others get their share, too.
            connection.settimeout(deadline.left() / (len(addresses) - number))
            connection.connect(address)
        except OSError as error:
            connection.close()
            failure = failure or error
            deadline.left()
            continue
        return connection
    raise failure or OSError("no address")


class _TimedSocket:
    """A socket whose every single wait ends with a deadline."""

    def __init__(self, connection: ssl.SSLSocket, deadline: Deadline) -> None:
        self._connection = connection
        self._deadline = deadline

    def sendall(self, data: bytes | Iterable[bytes]) -> None:
        for part in [data] if isinstance(data, bytes) else data:
            self._connection.settimeout(self._deadline.left())
            self._connection.sendall(part)

    def makefile(self, _: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self._connection, self._deadline))

    def close(self) -> None:
        """Do nothing: the library closes before it reads the answer; see `_Connection.end`."""


class _TimedReader(io.RawIOBase):
    def __init__(self, connection: ssl.SSLSocket, deadline: Deadline) -> None:
        self._connection = connection
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        self._connection.settimeout(self._deadline.left())
        return self._connection.recv_into(buffer)
