"""Another mutating webhook, which writes a spec's contents into the field of Windows.

As the webhook for Windows does: where ``windowsOptions`` of the pod or of a container name a
GMSACredentialSpec and have no contents, it adds them. Run as a program, with certificate and key
and a JSON of specs by their names; it serves on the port given until it is ended.
"""

from __future__ import annotations

import base64
import json
import ssl
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def changes(pod: dict[str, Any], specs: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Return the patch of a pod."""
    spec = pod["spec"]
    places = [("/spec", spec)]
    places += [(f"/spec/containers/{i}", each) for i, each in enumerate(spec["containers"])]
    for pointer, place in places:
        options = (place.get("securityContext") or {}).get("windowsOptions") or {}
        name = options.get("gmsaCredentialSpecName")
        if name in specs and "gmsaCredentialSpec" not in options:
            path = f"{pointer}/securityContext/windowsOptions/gmsaCredentialSpec"
            value = json.dumps(specs[name], separators=(",", ":"))
            yield {"op": "add", "path": path, "value": value}


def main(port: str, certificate: str, key: str, specs: str) -> None:
    """Serve until the end."""
    known = json.loads(Path(specs).read_text())

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["request"]
            patch = list(changes(request["object"], known))
            response: dict[str, Any] = {"uid": request["uid"], "allowed": True}
            if patch:
                encoded = base64.b64encode(json.dumps(patch).encode()).decode()
                response |= {"patchType": "JSONPatch", "patch": encoded}
            review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
            body = json.dumps(review | {"response": response}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
