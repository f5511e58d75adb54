"""TLS servers of the test's own on loopback, each with another fault in its certificate."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from credspec.directory.locator import DomainController
from credspec.directory.tls_certificates import certificate_problem

HOST = "dc1.a.test"
NOW = datetime.now(UTC)
DAY = timedelta(days=1)


class Authority:
    """A certificate authority, and certificates that it signs."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = directory / f"{name}.pem"
        self._numbers = itertools.count()
        own = self._signed(self.name, self.key, None, NOW - 9 * DAY, NOW + 9 * DAY)
        self.file.write_bytes(own.public_bytes(serialization.Encoding.PEM))

    def certificate(
        self, host: str = HOST, start: datetime = NOW - DAY, end: datetime = NOW + DAY
    ) -> Path:
        """Return a file with a key and a certificate for it."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        made = self._signed(subject, key, host, start, end)
        path = self.directory / f"{next(self._numbers)}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + made.public_bytes(serialization.Encoding.PEM)
        )
        return path

    def self_signed(self, host: str = HOST) -> tuple[Path, Path]:
        """Return files with key and certificate, and with the certificate of no authority."""
        subject, key = self.name, self.key
        made = self._signed(subject, key, host, NOW - DAY, NOW + DAY)
        served, trusted = (self.directory / f"{next(self._numbers)}.pem" for _ in range(2))
        trusted.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        served.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + trusted.read_bytes()
        )
        return served, trusted

    def _signed(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        host: str | None,
        start: datetime,
        end: datetime,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=host is None, path_length=None), critical=True)
        )
        if host is not None:
            names = x509.SubjectAlternativeName([x509.DNSName(host)])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self.key, hashes.SHA256())


@contextlib.contextmanager
def serving(certificate: Path | None) -> Iterator[int]:
    """Serve TLS on a port of 127.0.0.1; without a certificate, end every handshake."""
    listener = socket.create_server(("127.0.0.1", 0))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if certificate is not None:
        context.load_cert_chain(certificate)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                taken, _ = listener.accept()
                with taken, contextlib.suppress(OSError):
                    context.wrap_socket(taken, server_side=True).close()

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("own"), "Own-Authority")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("other"), "Other-Authority")


def problem(certificate: Path | None, ca_file: Path) -> str:
    with serving(certificate) as port:
        found = certificate_problem(DomainController(HOST, ("127.0.0.1",)), ca_file, port=port)
    return "" if found is None else str(found)


def test_a_good_certificate_is_no_problem(authority: Authority) -> None:
    assert problem(authority.certificate(), authority.file) == ""


def test_a_certificate_that_signed_itself_may_be_trusted_by_itself(authority: Authority) -> None:
    served, trusted = authority.self_signed()
    assert problem(served, trusted) == ""
    assert "ldap-certificate-authority" in problem(served, authority.self_signed()[1])


@pytest.mark.parametrize(
    ("make", "texts"),
    [
        (
            lambda own, other: (own.certificate(), other.file),
            ("ldap-certificate-authority", "CN=Own-Authority", "Other-Authority.pem"),
        ),
        (
            lambda own, _: (own.certificate("dc9.a.test"), own.file),
            ("ldap-certificate-name", "it is for dc9.a.test", f"expected {HOST}"),
        ),
        (
            lambda own, _: (own.certificate(start=NOW - 3 * DAY, end=NOW - DAY), own.file),
            ("ldap-certificate-expired", f"{NOW - DAY:%Y-%m-%d}"),
        ),
        (
            lambda own, _: (own.certificate(start=NOW + DAY, end=NOW + 2 * DAY), own.file),
            ("ldap-certificate-not-yet-valid", f"{NOW + DAY:%Y-%m-%d}"),
        ),
        (lambda own, _: (None, own.file), ("ldap-tls", "certificate for LDAPS")),
    ],
)
def test_each_fault_is_named(
    authority: Authority,
    other: Authority,
    make: Callable[[Authority, Authority], tuple[Path | None, Path]],
    texts: tuple[str, ...],
) -> None:
    text = problem(*make(authority, other))
    for wanted in texts:
        assert wanted in text
    assert "firewall" not in text


@pytest.mark.parametrize("content", [None, b"", b"no certificate", "directory"])
def test_authorities_that_cannot_be_read(
    authority: Authority, tmp_path: Path, content: bytes | str | None
) -> None:
    path = tmp_path / "ca.pem"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        path.mkdir()
    text = problem(authority.certificate(), path)
    assert "ldap-ca-file" in text
    assert str(path) in text


def test_a_port_that_is_closed(authority: Authority) -> None:
    with serving(None) as port:
        pass
    found = certificate_problem(DomainController(HOST, ("127.0.0.1",)), authority.file, port=port)
    assert found is not None
    assert found.code == "ldap-unreachable"
