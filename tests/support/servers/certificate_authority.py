"""A certificate authority of a test's own, made by openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Authority:
    """The authority in a directory; makes certificates of servers and clients."""

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
