"""Why a domain controller's certificate is not accepted, in words of an administrator.

libldap says only that the connection failed. So after a failure, or for the doctor, one TLS
handshake is made with Python's ssl, which tells the reason, and the certificate is looked at.
"""

from __future__ import annotations

import socket
import ssl
import warnings
from collections.abc import Mapping
from datetime import UTC
from pathlib import Path
from typing import Final

from credspec.directory.certificate_authorities import system_ca_file
from credspec.directory.locator import LDAPS_PORT, DomainController
from credspec.errors import CertificateTimeError, NoAnswerError, TlsTrustError, UnreachableError
from credspec.printable import printable

_HANDSHAKE_SECONDS: Final = 3.0

# Verification results of OpenSSL (x509_vfy.h).
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_UNKNOWN_AUTHORITY: Final = frozenset({2, 18, 19, 20, 21, 27})
_OTHER_NAME: Final = frozenset({62, 64})


def certificate_problem(
    controller: DomainController, ca_file: Path | None = None, *, port: int = LDAPS_PORT
) -> UnreachableError | None:
    """Make a TLS handshake with a controller; return why it fails, None if it succeeds.

    `ca_file` is as with `Connection.open`. Blocks for at most three seconds for each address. The
    codes are `ldap-ca-file`, `ldap-certificate-authority`, `ldap-certificate-name`,
    `ldap-certificate-expired`, `ldap-certificate-not-yet-valid`, `ldap-certificate` for what else
    is wrong with it, `ldap-tls` if there is no certificate to look at, and `ldap-unreachable`.
    """
    path = ca_file or system_ca_file()
    try:
        context = ssl.create_default_context(cafile=path)
        # What Python 3.13 demands beyond libldap, such as a key identifier, refuses nothing there.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    except (OSError, ValueError) as error:
        return _bad_ca_file(path, error)
    # Not get_ca_certs(), which leaves out a controller's own certificate that it signed itself.
    if not context.cert_store_stats()["x509"]:
        return _bad_ca_file(path, None)
    where = f"certificate of {controller.host}:{port}"
    failure: UnreachableError | None = None
    for address in controller.addresses:
        try:
            _handshake(context, controller.host, address, port)
        except ssl.SSLCertVerificationError as error:
            return _bad_certificate(error, controller.host, address, port, path)
        except TimeoutError:
            failure = failure or NoAnswerError.of(
                "ldap-timeout",
                f"no answer to a TLS handshake in {_HANDSHAKE_SECONDS:.0f} s",
                where=where,
                remedy="the domain controller is overloaded, paused or cut off",
            )
        except ConnectionRefusedError:
            failure = failure or NoAnswerError.of(
                "ldap-unreachable",
                f"{address} refuses connections on port {port}",
                where=where,
                remedy="start the domain controller, or open the port in its firewall",
            )
        except OSError as error:
            failure = failure or UnreachableError.of(
                "ldap-tls",
                f"the TLS handshake failed: {_reason(error)}",
                where=where,
                remedy="the controller may have no certificate for LDAPS (Windows: one for server "
                "authentication in its computer store, e.g. by autoenrolment), or may not offer "
                "TLS 1.2",
            )
        else:
            return None
    return failure


def _handshake(context: ssl.SSLContext, host: str, address: str, port: int) -> bytes:
    """Return the certificate that the server shows, in DER."""
    with (
        socket.create_connection((address, port), timeout=_HANDSHAKE_SECONDS) as connected,
        context.wrap_socket(connected, server_hostname=host) as secured,
    ):
        return secured.getpeercert(binary_form=True) or b""


def _bad_certificate(
    error: ssl.SSLCertVerificationError, host: str, address: str, port: int, ca_file: Path
) -> TlsTrustError:
    shown = _shown(host, address, port)
    where = f"certificate of {host}:{port}"
    code = error.verify_code
    if code in _UNKNOWN_AUTHORITY:
        return TlsTrustError.of(
            "ldap-certificate-authority",
            f"it is signed by {shown['issuer']}, which {ca_file} does not have",
            where=where,
            remedy="put that authority's certificate, in PEM, into the file that ca_file under "
            "[ldap] names",
        )
    if code in _OTHER_NAME:
        return TlsTrustError.of(
            "ldap-certificate-name",
            f"it is for {shown['names']}",
            where=where,
            expected=host,
            remedy="give the controller a certificate with its DNS name, or name the controller "
            "under [domains] in the configuration as the certificate does",
        )
    if code == _EXPIRED:
        return CertificateTimeError.of(
            "ldap-certificate-expired",
            f"it, or one that it is signed by, has expired (its own end: {shown['end']})",
            where=where,
            remedy="renew the controller's certificate, or the authority's in ca_file under "
            "[ldap]; check this host's clock",
        )
    if code == _NOT_YET_VALID:
        return CertificateTimeError.of(
            "ldap-certificate-not-yet-valid",
            f"it, or one that it is signed by, is not valid yet (its own start: {shown['start']})",
            where=where,
            remedy="check this host's clock, then the controller's certificate",
        )
    return TlsTrustError.of(
        "ldap-certificate",
        f"it is not accepted: {error.verify_message}",
        where=where,
        remedy="replace the controller's certificate by one that TLS clients accept for its DNS "
        "name",
    )


def _shown(host: str, address: str, port: int) -> Mapping[str, str]:
    """Return what the certificate says of itself; nothing of it is verified."""
    from cryptography import x509

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    unknown = dict.fromkeys(("issuer", "names", "start", "end"), "(unknown)")
    try:
        data = _handshake(context, host, address, port)
        with warnings.catch_warnings():
            # A serial number below zero is nothing that concerns who reads this.
            warnings.simplefilter("ignore")
            certificate = x509.load_der_x509_certificate(data)
        issuer = certificate.issuer.rfc4514_string()
        validity = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except (OSError, ValueError):
        return unknown
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = [str(name.value) for name in extension.value]
    except (x509.ExtensionNotFound, ValueError):
        names = [certificate.subject.rfc4514_string()]
    start, end = (f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC" for moment in validity)
    texts = {"issuer": issuer, "names": ", ".join(names[:10]), "start": start, "end": end}
    return {key: printable(text)[:300] or "(nobody)" for key, text in texts.items()}


def _bad_ca_file(path: Path, error: Exception | None) -> TlsTrustError:
    if isinstance(error, ssl.SSLError) or error is None:
        found = "it has no certificate in PEM"
    else:
        found = getattr(error, "strerror", None) or str(error)
    return TlsTrustError.of(
        "ldap-ca-file",
        found,
        where=f"certificate authorities {path}",
        expected="a file with the certificate of the domain's authority, in PEM",
        remedy="let ca_file under [ldap] name it, or install the package ca-certificates",
    )


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "protocol error").lower().replace("_", " ")
    return error.strerror or str(error) or "the controller ended the connection"
