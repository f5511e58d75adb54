"""Local HTTPS servers that speak the interfaces of services which cannot be had here."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from support.servers.certificate_authority import Authority


@dataclass
class Service:
    """A server and what it was asked; `answer` returns status, headers and body."""

    port: int
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    answer: Callable[[str, str, dict[str, str], bytes], tuple[int, dict[str, str], bytes]] = (
        lambda *_: (404, {}, b"")
    )


Serve = Callable[..., Service]


@pytest.fixture
def serve(authority: Authority) -> Iterator[Serve]:
    servers: list[http.server.HTTPServer] = []

    def start(
        name: str = "localhost", *, clients: Authority | None = None, plain: bool = False
    ) -> Service:
        class Handler(http.server.BaseHTTPRequestHandler):
            def _do(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                question = (
                    self.command,
                    self.path,
                    {key.lower(): value for key, value in self.headers.items()},
                    self.rfile.read(length),
                )
                service.asked.append(question)
                status, headers, body = service.answer(*question)
                self.send_response(status)
                for key, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = _do  # noqa: N815 - the library's names

            def log_message(self, *args: Any) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args: Any) -> None:
                pass

        server = Server(("127.0.0.1", 0), Handler)
        if not plain:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*authority.issue(name))
            if clients is not None:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(clients.certificate)
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        service = Service(server.server_address[1])
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return service

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
