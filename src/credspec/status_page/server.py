"""The page's server on 127.0.0.1: files of the page, a stream of server-sent events, the doctor.

    GET  /?token=TOKEN       once: on to the secret path
    GET  /SECRET/            the page
    GET  /SECRET/feed        text/event-stream: `state`, `events`, `events_error`, `doctor`
    POST /SECRET/doctor      run the doctor; ?identity=NAME@DOMAIN adds an account that is held

Everything else is refused, and every request whose Host is not this server's, so that no other
site's name can lead a browser here.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any, ClassVar, Final
from urllib.parse import parse_qs, urlsplit

from credspec.status_page.access import Access
from credspec.status_page.doctor_run import DoctorRun
from credspec.status_page.feed import Feed
from credspec.status_page.watcher import Watcher

ADDRESS: Final = "127.0.0.1"
_FILES: Final = {
    "": ("index.html", "text/html; charset=utf-8"),
    "style.css": ("style.css", "text/css; charset=utf-8"),
    "script.js": ("script.js", "text/javascript; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_MOST_CONNECTIONS: Final = 64
_SECONDS: Final = 30.0
_SILENCE_SECONDS: Final = 15.0
_REFUSED: Final = (
    "This address is not, or no longer, valid: it opens the page once.\n"
    "Run `credspec status --web` again.\n"
)


class StatusServer(ThreadingHTTPServer):
    """Serves the page to who has the token; `port` 0 is any that is free."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int, feed: Feed, watcher: Watcher, doctor: DoctorRun) -> None:
        super().__init__((ADDRESS, port), _Handler)
        self.access = Access()
        self.feed, self.watcher, self.doctor = feed, watcher, doctor
        self.slots = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        page = resources.files("credspec.status_page") / "page"
        self.files: Mapping[str, tuple[bytes, str]] = {
            name: ((page / file).read_bytes(), kind) for name, (file, kind) in _FILES.items()
        }

    @property
    def address(self) -> str:
        """The address to open, which works once."""
        return f"http://{ADDRESS}:{self.server_port}/?token={self.access.token}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection unless there are too many."""
        if not self.slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a browser that leaves is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: StatusServer
    timeout: ClassVar[float] = _SECONDS
    server_version = "credspec"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer with a part of the page."""
        address = urlsplit(self.path)
        if not self._is_host_right():
            return
        if address.path == "/":
            token = parse_qs(address.query).get("token", [""])[0]
            place = self.server.access.enter(token)
            if place is None:
                self._refuse()
            else:
                self._answer(HTTPStatus.SEE_OTHER, b"", "text/plain", Location=place)
            return
        name = self.server.access.resource(address.path)
        if name is None:
            self._refuse()
        elif name == "feed":
            self._feed()
        elif name in self.server.files:
            self._answer(HTTPStatus.OK, *self.server.files[name])
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"There is no such thing.\n", "text/plain")

    def do_POST(self) -> None:
        """Run the doctor."""
        address = urlsplit(self.path)
        if not self._is_host_right():
            return
        if self.server.access.resource(address.path) != "doctor":
            self._refuse()
            return
        name = parse_qs(address.query).get("identity", [""])[0]
        identity = self.server.watcher.identity(name)
        if name and identity is None:
            self._answer(HTTPStatus.NOT_FOUND, b"The agent holds no such identity.\n", "text/plain")
        elif self.server.doctor.start(identity):
            self._answer(HTTPStatus.ACCEPTED, b"", "text/plain")
        else:
            self._answer(HTTPStatus.CONFLICT, b"The doctor runs already.\n", "text/plain")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Log nothing: paths are secrets."""

    def _is_host_right(self) -> bool:
        port = self.server.server_port
        if self.headers.get("Host") in {f"{ADDRESS}:{port}", f"localhost:{port}"}:
            return True
        self._refuse()
        return False

    def _refuse(self) -> None:
        self._answer(HTTPStatus.FORBIDDEN, _REFUSED.encode(), "text/plain; charset=utf-8")

    def _answer(self, status: HTTPStatus, content: bytes, kind: str, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, **headers, "Content-Type": kind}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _feed(self) -> None:
        self.send_response(HTTPStatus.OK)
        for name, value in {**_HEADERS, "Content-Type": "text/event-stream"}.items():
            self.send_header(name, value)
        self.end_headers()
        seen = 0
        while not self.server.feed.is_closed:
            seen, messages = self.server.feed.after(seen, _SILENCE_SECONDS)
            parts = [f"event: {name}\ndata: {text}\n\n" for name, text in messages]
            # A comment shows whether the browser is still there.
            self.wfile.write("".join(parts or [":\n\n"]).encode())
