"""The certificates and kubeconfigs of a test cluster, made by openssl in a second."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from support.servers.certificate_authority import make, make_authority


class ClusterCertificates:
    """An authority and what it signs, in a directory; `server` is the API server's URL."""

    def __init__(self, directory: Path, server: str, node_address: str) -> None:
        self._server = server
        self._directory = directory
        self.authority = make_authority(directory)
        names = "DNS:kubernetes,DNS:kubernetes.default.svc,IP:127.0.0.1,IP:10.96.0.1"
        self.api_server = self._issue(
            "apiserver", "/CN=kube-apiserver", f"{names},IP:{node_address}"
        )
        self.to_kubelet = self._issue("to-kubelet", "/O=system:masters/CN=apiserver")
        self.front_proxy = self._issue("front-proxy", "/CN=front-proxy-client")
        self.service_accounts = directory / "sa.key"
        subprocess.run(
            ["openssl", "genrsa", "-out", str(self.service_accounts), "2048"],
            check=True,
            capture_output=True,
        )
        self.service_accounts_public = directory / "sa.pub"
        public = ["-pubout", "-out", str(self.service_accounts_public)]
        subprocess.run(
            ["openssl", "rsa", "-in", str(self.service_accounts), *public],
            check=True,
            capture_output=True,
        )

    def kubeconfig(self, subject: str) -> Path:
        """Return the kubeconfig of a client, such as ``/O=system:nodes/CN=system:node:node1``."""
        certificate, key = self.issue_client(subject)
        path = certificate.with_suffix(".kubeconfig")
        cluster = {"server": self._server, "certificate-authority": str(self.authority.certificate)}
        user = {"client-certificate": str(certificate), "client-key": str(key)}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "user", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "user"}}],
            "current-context": "test",
        }
        path.write_text(json.dumps(document))
        return path

    def kubelet(self, node: str, address: str) -> tuple[Path, Path]:
        """Return certificate and key of a node's kubelet."""
        return self._issue(f"kubelet-{node}", f"/CN={node}", f"DNS:{node},IP:{address}")

    def issue_client(self, subject: str) -> tuple[Path, Path]:
        """Return certificate and key of a client."""
        return self._issue(subject.rpartition("=")[2].replace(":", "-"), subject)

    def _issue(self, name: str, subject: str, alternatives: str = "") -> tuple[Path, Path]:
        certificate = self._directory / f"{name}.crt"
        key = self._directory / f"{name}.key"
        extensions = {
            "basicConstraints": "critical,CA:FALSE",
            "keyUsage": "critical,digitalSignature",
            "extendedKeyUsage": "serverAuth,clientAuth",
        }
        if alternatives:
            extensions["subjectAltName"] = alternatives
        authority = ["-CA", str(self.authority.certificate)]
        authority += ["-CAkey", str(self._directory / "ca.key")]
        out = ["-keyout", str(key), "-out", str(certificate), "-subj", subject]
        make([*out, *authority], extensions)
        return certificate, key
