"""Local HTTPS servers that speak the interfaces of services which cannot be had here."""

from __future__ import annotations

import http.server
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass
class Authority:
    """A certificate authority of the test's own, made by openssl."""

    directory: Path

    @property
    def certificate(self) -> Path:
        return self.directory / "ca.crt"

    def issue(self, name: str) -> tuple[Path, Path]:
        """Return certificate and key of a server or client."""
        certificate, key = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        subject = ["-subj", f"/CN={name}"]
        extensions = {
            "basicConstraints": "critical,CA:FALSE",
            "keyUsage": "critical,digitalSignature",
            "subjectAltName": f"DNS:{name},IP:127.0.0.1",
        }
        signing = ["-CA", str(self.certificate), "-CAkey", str(self.directory / "ca.key")]
        make(["-keyout", str(key), "-out", str(certificate), *subject, *signing], extensions)
        # By the rules of RFC 5280, on which Python 3.13 insists and older ones do not.
        verify = ["openssl", "verify", "-x509_strict", "-CAfile", str(self.certificate)]
        subprocess.run([*verify, str(certificate)], check=True, capture_output=True)
        return certificate, key


def make(options: list[str], extensions: dict[str, str]) -> None:
    for name, value in extensions.items():
        options += ["-addext", f"{name}={value}"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    subprocess.run([*command, "-nodes", "-days", "2", *options], check=True, capture_output=True)


def make_authority(directory: Path) -> Authority:
    directory.mkdir()
    extensions = {
        "basicConstraints": "critical,CA:TRUE",
        "keyUsage": "critical,keyCertSign,cRLSign",
    }
    out = ["-keyout", str(directory / "ca.key"), "-out", str(directory / "ca.crt")]
    make([*out, "-subj", "/CN=test authority"], extensions)
    return Authority(directory)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("tls") / "ca")


@pytest.fixture(scope="session")
def other_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("tls") / "other")


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
