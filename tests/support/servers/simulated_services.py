"""Services that hold host accounts, simulated: TLS servers that speak the services' interfaces.

Rancher's account provider, Vault, AWS Secrets Manager and Azure Key Vault, each with what its
provider is configured with and asked; and servers that behave as no service should.
"""

from __future__ import annotations

import base64
import http.server
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

KINDS: Final = ("kubernetes", "rancher", "vault", "aws", "azure-key-vault")
ACCOUNT: Final = {
    "username": "reader",
    "password": "Very-Secret-1!",
    "domainName": "contoso.com",
}
OBJECT: Final = "11111111-2222-3333-4444-555555555555"
VAULT_HOST: Final = "kv1.vault.lab"
STRICT: Final = {"basicConstraints": "critical,CA:TRUE", "keyUsage": "critical,keyCertSign,cRLSign"}

Answer = tuple[int, Mapping[str, str], bytes]
Question = tuple[str, str, dict[str, str], bytes]
"""Method, path, headers with names in lower case, body."""


def openssl_certificate(options: list[str], extensions: Mapping[str, str]) -> None:
    """Make a certificate and its key."""
    added = [part for name, text in extensions.items() for part in ("-addext", f"{name}={text}")]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", *options, *added]
    subprocess.run(command, check=True, capture_output=True)


@dataclass(frozen=True)
class Certificates:
    """An authority of a test's own, in a directory of its own."""

    directory: Path
    extensions: Mapping[str, str] = field(default_factory=lambda: STRICT)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True)
        out = ["-keyout", str(self.directory / "ca.key"), "-out", str(self.authority)]
        openssl_certificate([*out, "-subj", "/CN=test authority"], self.extensions)

    @property
    def authority(self) -> Path:
        """The authority's certificate, as PEM."""
        return self.directory / "ca.crt"

    def issue(self, name: str) -> tuple[Path, Path]:
        """Return certificate and key of a server or client, the key its owner's alone."""
        certificate, key = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        if not key.exists():
            signing = ["-CA", str(self.authority), "-CAkey", str(self.directory / "ca.key")]
            out = ["-keyout", str(key), "-out", str(certificate), "-subj", f"/CN={name}", *signing]
            extensions = {
                "basicConstraints": "critical,CA:FALSE",
                "keyUsage": "critical,digitalSignature",
                "subjectAltName": f"DNS:{name},IP:127.0.0.1",
            }
            openssl_certificate(out, extensions)
            key.chmod(0o600)
        return certificate, key


class HttpsService:
    """An HTTPS server on a port of an address; `answer` may be replaced at any time.

    Without a `pair` of certificate and key it speaks HTTP.
    """

    def __init__(
        self,
        pair: tuple[Path, Path] | None,
        answer: Callable[..., Answer],
        address: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        self.asked: list[Question] = []
        self.answer = answer
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def _do(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                headers = {key.lower(): value for key, value in self.headers.items()}
                question = (self.command, self.path, headers, self.rfile.read(length))
                service.asked.append(question)
                status, given, body = service.answer(*question)
                self.send_response(status)
                for key, value in {"Content-Length": str(len(body)), **given}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = _do  # noqa: N815 - the library's names

            def log_message(self, *_: Any) -> None:
                pass

        self._server = _Server(address, Handler)
        self.port: int = self._server.server_address[1]
        if pair is None:
            return
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pair)
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class HostileServer:
    """Does on each connection what it is told, until the other side has closed it.

    With a `pair` it makes the TLS handshake before.
    """

    def __init__(
        self, behave: Callable[[socket.socket], None], pair: tuple[Path, Path] | None = None
    ) -> None:
        self._behave = behave
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if pair is not None:
            self._context.load_cert_chain(*pair)
        self._has_pair = pair is not None
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.connections: list[threading.Thread] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def all_closed(self) -> bool:
        """Wait until each connection was closed by the other side; whether there was any."""
        for thread in self.connections:
            thread.join()
        return bool(self.connections)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._talk, args=(connection,), daemon=True)
            self.connections.append(thread)
            thread.start()

    def _talk(self, connection: socket.socket) -> None:
        try:
            if self._has_pair:
                connection = self._context.wrap_socket(connection, server_side=True)
            self._behave(connection)
            while connection.recv(4096):
                pass
        except OSError:
            pass
        finally:
            connection.close()


def drip(connection: socket.socket, start: bytes, part: bytes) -> None:
    """Send the start, and then one part after the other, slowly and without end."""
    connection.sendall(start)
    while True:
        connection.sendall(part)
        time.sleep(0.02)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        pass


def answer_of(kind: str, account: Mapping[str, str] = ACCOUNT) -> Callable[..., Answer]:
    """Return what a service of a kind answers, whatever it is asked."""
    json_type = {"Content-Type": "application/json"}
    if kind == "rancher":
        return lambda *_: (200, json_type, json.dumps(account).encode())
    if kind == "kubernetes":
        data = {key: base64.b64encode(value.encode()).decode() for key, value in account.items()}
        secret = {"apiVersion": "v1", "kind": "Secret", "data": data}
        return lambda *_: (200, json_type, json.dumps(secret).encode())
    if kind == "vault":
        body = {"data": {"data": dict(account), "metadata": {}}}
        return lambda *_: (200, json_type, json.dumps(body).encode())
    if kind == "aws":
        text = json.dumps({"SecretString": json.dumps(account)})
        return lambda *_: (200, {"Content-Type": "application/x-amz-json-1.1"}, text.encode())

    def key_vault(_: str, __: str, headers: Mapping[str, str], ___: bytes) -> Answer:
        if headers.get("authorization") != "Bearer the-token":
            challenge = 'Bearer authorization="https://login.lab/t", resource="https://vault.lab"'
            return 401, {"WWW-Authenticate": challenge}, b""
        line = "{domainName}\\{username}:{password}".format_map(account)
        found = {"value": line, "id": f"https://{VAULT_HOST}/secrets/reader/v1"}
        return 200, json_type, json.dumps(found).encode()

    return key_vault


def metadata_answer(*_: object) -> Answer:
    """Return what Azure's metadata service answers when it is asked for a token."""
    token = {
        "access_token": "the-token",
        "expires_in": "3600",
        "expires_on": "9999999999",
        "resource": "https://vault.lab",
        "token_type": "Bearer",
    }
    return 200, {"Content-Type": "application/json"}, json.dumps(token).encode()


def server_name(kind: str) -> str:
    """Return the name that a service of a kind is asked by."""
    return VAULT_HOST if kind == "azure-key-vault" else "localhost"


def settings_of(
    kind: str, directory: Path, port: int, certificates: Certificates, ca: bytes | None = None
) -> dict[str, Any]:
    """Return a provider's table for a service on a port; its files are made below `directory`.

    `ca` is the content of its file of authorities, by default the certificate of `certificates`.
    """
    directory.mkdir(exist_ok=True)
    authorities = certificates.authority.read_bytes() if ca is None else ca
    ca_file = directory / "ca.crt"
    ca_file.write_bytes(authorities)
    if kind == "rancher":
        for namespace in ("apps", "other"):
            made = directory / "gmsa" / namespace
            certificate, key = certificates.issue("host1")
            for name, content in (
                ("ssl/ca/tls.crt", authorities),
                ("ssl/client/tls.crt", certificate.read_bytes()),
                ("ssl/client/tls.key", key.read_bytes()),
                ("port.txt", str(port).encode()),
            ):
                (made / name).parent.mkdir(parents=True, exist_ok=True)
                (made / name).write_bytes(content)
            (made / "ssl/client/tls.key").chmod(0o600)
        return {"directory": str(directory / "gmsa")}
    if kind in {"kubernetes", "vault"}:
        token = directory / "token"
        token.write_text("the-token\n")
        token.chmod(0o600)
        table = {
            "url": f"https://localhost:{port}",
            "ca_file": str(ca_file),
            "token_file": str(token),
        }
        own = {"namespace": "credspec", "secrets": ["reader", "other"]}
        return {**table, **own} if kind == "kubernetes" else table
    if kind == "aws":
        return {"endpoint_url": f"https://localhost:{port}", "ca_file": str(ca_file)}
    return {"hosts": [".vault.lab"], "ca_file": str(ca_file)}


def input_of(kind: str, share: int = 1) -> str:
    """Return what a provider of a kind is asked; another `share` leads behind something else."""
    first = share == 1
    return {
        "kubernetes": "reader" if first else "other",
        "rancher": f"{'apps' if first else 'other'}:reader",
        "vault": f"{'apps' if first else 'other'}/reader",
        "aws": f"arn:aws:secretsmanager:eu-west-{share}:123456789012:secret:prod/reader-AbCdEf",
        "azure-key-vault": f"ObjectId={OBJECT};SecretUri=https://kv{share}.vault.lab/secrets/reader",
    }[kind]


def resolving(ports: Mapping[str, int]) -> Callable[..., Any]:
    """Return a `socket.getaddrinfo` that knows vaults by name, at ports of 127.0.0.1."""
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if host in ports and port == 443:
            return real("127.0.0.1", ports[host], *args, **options)
        return real(host, port, *args, **options)

    return resolve


def aws_environment(directory: Path) -> dict[str, str]:
    """Return the variables with which AWS' library finds credentials, and nothing else."""
    return {
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_CONFIG_FILE": str(directory / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(directory / "none"),
    }
