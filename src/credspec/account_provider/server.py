"""Rancher's account provider, served: HTTPS for hosts that have its plug-in.

``GET /provider`` with the header ``object: SECRET`` answers with ``username``, ``password`` and
``domainName`` in JSON. Clients are known by a certificate of one authority that is only for this;
each client may have one secret. What is missing and what is forbidden gets the same answer.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

from credspec.account_provider.tls_admission import HandshakeLimits, TlsAdmission
from credspec.config_table import PATH, Key, Kind, NotTakenError, Table, text_of
from credspec.errors import CredspecError, NotPermittedError, UsageError
from credspec.providers.answers import account_from_json
from credspec.providers.private_file import FILE_NAME, read_private_file
from credspec.providers.provider_table import ACCOUNTS_DIRECTORY, read_table
from credspec.sockets.admission import AdmissionReport, Slot, affordable_connections

_MAX_HEAD_BYTES: Final = 8 * 1024
_SECONDS: Final = 5.0
_MAX_CLIENTS: Final = 64
_MAX_OF_CLIENT: Final = 16
# A client, and the file that its account is in.
_DESCRIPTORS_EACH: Final = 2
_BACKLOG: Final = 4096
_REQUEST: Final = re.compile(rb"([A-Z]{1,16}) ([!-~]{1,1024}) HTTP/1\.[01]")
_HEADER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}):[ \t]*([ -~\t]*?)[ \t]*")
_SECRET: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_CLIENT: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_MAX_PORT: Final = 65535
_WHERE: Final = "account provider"

Tell = Callable[[str, str, bool], None]
"""Called for each request: the client's name, the secret it asked for, whether it was given."""


_EXPECTED: Final = 'ADDRESS:PORT, and a table of clients such as "host1.contoso.com" = "reader"'


def _listen(text: str) -> tuple[str, int] | None:
    host, _, port = text.rpartition(":")
    number = int(port) if port.isascii() and port.isdecimal() else -1
    return (host.strip("[]"), number) if host and 0 <= number <= _MAX_PORT else None


def _clients(value: Any) -> dict[str, str]:
    named = value if isinstance(value, dict) else {}
    if not named or not all(_is_client(name, secret) for name, secret in named.items()):
        raise NotTakenError((value, _EXPECTED))
    return {name.lower(): secret for name, secret in named.items()}


def _is_client(name: str, secret: object) -> bool:
    is_name = _CLIENT.fullmatch(name) is not None
    return is_name and isinstance(secret, str) and _SECRET.fullmatch(secret) is not None


_ADDRESS: Final = Kind(
    "a text", text_of(_listen, _EXPECTED).read, lambda address: '"{}:{}"'.format(*address)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountServiceSettings:
    """The table ``[account_provider]``.

    `listen` is the address and the port to listen on. `certificate`, `key` and `client_ca` are PEM
    files; `directory` holds a file for each secret, as the provider ``file`` reads them. `clients`
    says which secret a client may have, by the DNS name in its certificate, else its common name.
    """

    table: ClassVar = Table(
        "account_provider",
        "For `credspec account-provider`, which gives Windows hosts their accounts "
        "([providers](providers.md#credspec-account-provider-for-windows-hosts)).",
    )

    listen: Annotated[
        tuple[str, int], Key(kind=_ADDRESS, meaning="Address and port to listen on.")
    ] = ("127.0.0.1", 8443)
    certificate: Annotated[Path, Key(kind=PATH, meaning="The server's certificate, in PEM.")]
    key: Annotated[Path, Key(kind=PATH, meaning="The server's key, in PEM, without a password.")]
    client_ca: Annotated[
        Path,
        Key(
            kind=PATH,
            meaning="The only authorities, in PEM, that may sign clients' certificates.",
        ),
    ]
    directory: Annotated[Path, Key(kind=PATH, meaning="Holds one JSON file for each account.")] = (
        ACCOUNTS_DIRECTORY
    )
    clients: Annotated[
        Mapping[str, str],
        Key(
            kind=Kind("a table of secret names by the client's DNS name", _clients),
            secret=True,
            meaning="Which account each client gets: the DNS name in its certificate, and the name "
            "of the file.",
        ),
    ]

    @property
    def host(self) -> str:
        """The address to listen on."""
        return self.listen[0]

    @property
    def port(self) -> int:
        """The port to listen on."""
        return self.listen[1]


def account_service_settings(values: Mapping[str, Any]) -> AccountServiceSettings:
    """Read the table.

    Raises:
        UsageError: `config-wrong-value`, `config-unknown-key`.
    """
    return read_table(AccountServiceSettings, values, "account_provider")


class RunningService:
    """The service while it listens on `sockets`."""

    def __init__(self, sockets: Sequence[socket.socket], admission: TlsAdmission) -> None:
        self.sockets = tuple(sockets)
        self.tasks: set[asyncio.Task[None]] = set()
        self._admission = admission
        admission.start()

    def close(self) -> None:
        """Stop listening, and close all connections."""
        self._admission.close()
        for task in self.tasks:
            task.cancel()
        for each in self.sockets:
            each.close()

    async def wait_closed(self) -> None:
        """Wait until all connections are closed."""
        await asyncio.gather(*self.tasks, return_exceptions=True)


class AccountService:
    """The service; it keeps no secret and reads each file for each question.

    `report` is called for what should be logged of connections that are not served.
    """

    def __init__(
        self,
        settings: AccountServiceSettings,
        tell: Tell,
        report: Callable[[AdmissionReport], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._tell = tell
        self._report = report
        self._clients: Counter[str] = Counter()
        self._context = _context(settings)

    async def start(self) -> RunningService:
        """Listen; the sockets tell the port.

        Raises:
            UsageError: `account-provider-address`.
        """
        host, port = self._settings.host, self._settings.port
        try:
            listeners = await asyncio.to_thread(_listeners, host, port)
        except OSError as error:
            raise UsageError.of(
                "account-provider-address",
                error.strerror or str(error),
                where=f"{host}:{port}",
            ) from None
        limits = HandshakeLimits(seconds=_SECONDS)
        most = limits.total * 2 + _MAX_CLIENTS * _DESCRIPTORS_EACH

        def begin(connection: socket.socket, slot: Slot) -> asyncio.Task[None]:
            task = asyncio.create_task(self._serve(connection, lambda: admission.finished(slot)))
            running.tasks.add(task)
            task.add_done_callback(running.tasks.discard)
            return task

        admission = TlsAdmission(
            listeners,
            begin,
            connections=affordable_connections(most),
            report=self._report,
            limits=limits,
        )
        running = RunningService(listeners, admission)
        return running

    async def _serve(self, connection: socket.socket, is_known: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_MAX_HEAD_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=_SECONDS,
                ssl_shutdown_timeout=1.0,
            )
        except OSError:
            connection.close()
            return
        except BaseException:
            connection.close()
            raise
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        name = _client_name(writer.get_extra_info("ssl_object"))
        self._clients[name] += 1
        try:
            is_known()
            if self._clients.total() <= _MAX_CLIENTS and self._clients[name] <= _MAX_OF_CLIENT:
                async with asyncio.timeout(_SECONDS):
                    writer.write(await self._answer(reader, name))
                    await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            pass  # the client's own loss
        finally:
            self._clients[name] -= 1
            if not self._clients[name]:
                del self._clients[name]
            writer.close()
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(_SECONDS):
                    await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, client: str) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _response(431)
        request = _parsed(head)
        if request is None:
            return _response(400)
        method, path, headers = request
        if path != b"/provider":
            return _response(404)
        if method != b"GET":
            return _response(405)
        wanted = headers.get(b"object", b"").decode("ascii", "replace")
        if not wanted:
            return _response(400)
        content = await asyncio.to_thread(self._content, client, wanted)
        self._tell(
            client, wanted if _SECRET.fullmatch(wanted) else "(no name)", content is not None
        )
        return _response(404) if content is None else _response(200, content)

    def _content(self, client: str, wanted: str) -> bytes | None:
        allowed = self._settings.clients.get(client.lower())
        if allowed is None or wanted != allowed or not FILE_NAME.fullmatch(allowed):
            return None
        try:
            data = read_private_file(self._settings.directory / allowed, _WHERE)
            account = account_from_json(data, _WHERE)
        except CredspecError:
            return None
        answer = {
            "username": account.user,
            "password": account.password,
            "domainName": account.domain,
        }
        return json.dumps(answer).encode()


def _listeners(host: str, port: int) -> list[socket.socket]:
    """Listen on all addresses of a name; it may ask a name server."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listener = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _parsed(head: bytes) -> tuple[bytes, bytes, dict[bytes, bytes]] | None:
    """Return method, path and headers by lower-case name; None if it is not plain HTTP."""
    first, *lines = head[: -len(b"\r\n\r\n")].split(b"\r\n")
    request = _REQUEST.fullmatch(first)
    headers: dict[bytes, bytes] = {}
    for line in lines:
        match = _HEADER.fullmatch(line)
        if match is None or match[1].lower() in headers:
            return None
        headers[match[1].lower()] = match[2]
    if request is None or headers.get(b"content-length", b"0") != b"0":
        return None
    return None if b"transfer-encoding" in headers else (request[1], request[2], headers)


_REASONS: Final = {
    200: b"OK",
    400: b"Bad Request",
    404: b"Not Found",
    405: b"Method Not Allowed",
    431: b"Request Header Fields Too Large",
}


def _response(status: int, content: bytes = b"") -> bytes:
    headers = [
        b"HTTP/1.1 %d %s" % (status, _REASONS[status]),
        b"Content-Type: application/json; charset=utf-8",
        b"Content-Length: %d" % len(content),
        b"Cache-Control: no-store",
        b"Connection: close",
    ]
    return b"\r\n".join([*headers, b"", content])


def _client_name(connection: ssl.SSLObject) -> str:
    """Return the name in a client's certificate, which the authority vouches for."""
    certificate = connection.getpeercert() or {}
    alternatives: Any = certificate.get("subjectAltName", ())
    for kind, name in alternatives:
        if kind == "DNS":
            return str(name)
    subject: Any = certificate.get("subject", ())
    names = [value for part in subject for key, value in part if key == "commonName"]
    return str(names[0]) if len(names) == 1 else ""


def _context(settings: AccountServiceSettings) -> ssl.SSLContext:
    read_private_file(settings.key, _WHERE)
    authorities = read_private_file(settings.client_ca, _WHERE, secret=False)
    # Neither the host's authorities nor a certificate without one.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    # No client needs a second handshake on a connection, or a shorter one on another.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    context.num_tickets = 0
    try:
        context.load_verify_locations(cadata=authorities.decode("ascii", "replace"))
        context.load_cert_chain(settings.certificate, settings.key, password=_no_password)
    except (OSError, ValueError) as error:
        raise NotPermittedError.of(
            "account-provider-tls",
            f"certificate, key or client_ca cannot be used ({type(error).__name__})",
            where=_WHERE,
            expected="PEM files, the key without a password",
        ) from None
    return context


def _no_password() -> str:
    raise ValueError("the key has a password")
