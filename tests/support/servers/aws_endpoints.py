"""A local HTTP server that speaks S3's GetObject and Secrets Manager's GetSecretValue.

It stands in for AWS, which cannot run here. Requests must be signed (Signature Version 4) with the
access key and session token that it was told; the signature itself is not computed anew.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ACCESS_KEY = "AKIATESTTESTTEST0001"
SESSION_TOKEN = "a-session-token"


@dataclass
class AwsEndpoints:
    """The server, on a port of its own of 127.0.0.1."""

    objects: dict[str, bytes] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    hang: bool = False
    trouble: tuple[int, str] | None = None
    """Status and code with which it answers everything, as AWS does under load."""
    session_token: str = SESSION_TOKEN

    def __post_init__(self) -> None:
        endpoints = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                endpoints.asked.append(self.path)
                if endpoints.trouble is not None:
                    status, code = endpoints.trouble
                    body = f"<Error><Code>{code}</Code></Error>".encode()
                    self._say(status, body, "text/xml")
                    return
                if not self._is_signed("s3"):
                    self._say(403, b"<Error><Code>InvalidAccessKeyId</Code></Error>", "text/xml")
                    return
                found = endpoints.objects.get(self.path.partition("?")[0].lstrip("/"))
                if found is None:
                    self._say(404, b"<Error><Code>NoSuchKey</Code></Error>", "text/xml")
                    return
                self._say(200, found, "application/octet-stream")

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                target = self.headers.get("X-Amz-Target", "")
                endpoints.asked.append(f"{target} {body.get('SecretId')}")
                if not self._is_signed("secretsmanager"):
                    answer = {"__type": "UnrecognizedClientException"}
                else:
                    answer = endpoints.secret(target, body.get("SecretId"))
                status = 400 if "__type" in answer else 200
                self._say(status, json.dumps(answer).encode(), "application/x-amz-json-1.1")

            def _is_signed(self, service: str) -> bool:
                signed = self.headers.get("Authorization", "")
                return (
                    f"Credential={ACCESS_KEY}/" in signed
                    and f"/eu-west-1/{service}/aws4_request" in signed
                    and self.headers.get("X-Amz-Security-Token") == endpoints.session_token
                )

            def _say(self, status: int, body: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def secret(self, target: str, name: str) -> dict[str, str]:
        if self.hang:
            time.sleep(20)
        if target != "secretsmanager.GetSecretValue" or name not in self.secrets:
            return {"__type": "ResourceNotFoundException"}
        return {"ARN": name, "Name": "n", "SecretString": self.secrets[name]}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
