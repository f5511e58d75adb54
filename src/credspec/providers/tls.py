"""TLS to the servers of providers: exactly the authorities that are configured, and plain reasons.

Nothing here reads the environment where the configuration names authorities: neither
``SSLKEYLOGFILE`` nor ``SSL_CERT_FILE``, ``REQUESTS_CA_BUNDLE`` and the like.
"""

from __future__ import annotations

import os
import ssl
import stat
import sys
from pathlib import Path
from typing import Final

from credspec.errors import NotPermittedError
from credspec.providers.private_file import read_private_file

_MAX_AUTHORITIES_BYTES: Final = 4 * 1024 * 1024
_WRITTEN_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH

_REISSUE: Final = "reissue it, and put it into ca_file and on the server"
# By X509_V_ERR_... of OpenSSL's x509_vfy.h, whose numbers are part of its interface.
_REMEDIES: Final = (
    (
        {2, 18, 19, 20, 21, 27},
        (
            "put the certificate of the authority that issued the server's into ca_file, and let "
            "the server send the certificates between the two"
        ),
    ),
    (
        {9, 10},
        "renew the server's certificate or the authority's, or put this host's clock right",
    ),
    ({62, 63, 64}, "give the server a certificate with this name in subjectAltName"),
    (
        {32, 92},
        f"the authority's certificate needs keyUsage keyCertSign (critical): {_REISSUE}",
    ),
    (
        {24, 26, 37, 79, 81, 82, 89},
        (
            "an authority's certificate needs basicConstraints CA:TRUE (critical), and a server's "
            f"must not have it: {_REISSUE}"
        ),
    ),
    (
        {85, 86, 90, 91},
        (
            "an authority's certificate needs subjectKeyIdentifier, and one that it issued "
            "authorityKeyIdentifier (both not critical): reissue the one that lacks it"
        ),
    ),
    (
        {41, 80, 83, 84, 87, 88, 93, 94},
        f"a certificate is not as RFC 5280 demands: {_REISSUE}",
    ),
)
_OTHER_REMEDY: Final = (
    "look at both certificates with openssl x509 -text and openssl verify -x509_strict"
)


def client_context(
    where: str, authorities: bytes | None, pair: tuple[Path, Path] | None = None
) -> ssl.SSLContext:
    """Return what a client verifies a server with.

    `authorities` are the only ones that count, as PEM; None stands for the host's. `pair` are the
    files of the client's certificate and key, the key only readable by root and without a password.
    Certificates are held to the rules that this Python's default contexts hold them to: since 3.13
    these are those of RFC 5280, strictly.

    Raises:
        NotPermittedError: `host-account-tls`, `host-account-file`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if sys.version_info >= (3, 13):
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["http/1.1"])
    if authorities is None:
        context.set_default_verify_paths()
    else:
        _load_authorities(context, authorities, where)
    if pair is not None:
        certificate, key = pair
        read_private_file(key, where)
        try:
            context.load_cert_chain(certificate, key, password=_no_password)
        except (OSError, ValueError) as error:
            raise _unusable(f"certificate and key ({type(error).__name__})", where) from None
    return context


def read_authorities(path: Path, where: str) -> bytes:
    """Return a file of authorities, at most 4 MiB, that nobody but root can write.

    Raises:
        NotPermittedError: `host-account-file`.
    """
    found = ""
    data = b""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                found = "not a regular file"
            elif status.st_uid not in {0, os.geteuid()} or status.st_mode & _WRITTEN_BY_OTHERS:
                found = "others than root can write it"
            else:
                data = file.read(_MAX_AUTHORITIES_BYTES + 1)
    except OSError as error:
        found = error.strerror or "cannot be opened"
    if found or len(data) > _MAX_AUTHORITIES_BYTES:
        raise NotPermittedError.of(
            "host-account-file",
            f"{path}: {found or 'too large'}",
            where=where,
            expected="certificates of authorities, as PEM, in a file of root's",
        )
    return data


def _load_authorities(context: ssl.SSLContext, authorities: bytes, where: str) -> None:
    # Without any, other calls of the library would take the host's.
    try:
        context.load_verify_locations(cadata=authorities.decode("ascii", "replace"))
    except (OSError, ValueError):
        raise _unusable("ca_file", where) from None
    if not context.cert_store_stats()["x509"]:
        raise _unusable("ca_file", where)


def _unusable(what: str, where: str) -> NotPermittedError:
    return NotPermittedError.of(
        "host-account-tls",
        f"{what} cannot be used",
        where=where,
        expected="PEM files; of ca_file one certificate at the least, the key without a password",
    )


def tls_error(error: ssl.SSLError, where: str, peer: str) -> NotPermittedError:
    """Return what is said of a failed handshake with `peer`, in OpenSSL's own words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        found, remedy = error.verify_message, _remedy(error.verify_code)
    else:
        found = (error.reason or "TLS failed").replace("_", " ").lower()
        remedy = (
            "see whether it speaks TLS 1.2 or newer there, and whether it takes this client's "
            "certificate"
        )
    return NotPermittedError.of("host-account-tls", f"{peer}: {found}", where=where, remedy=remedy)


def _remedy(code: int) -> str:
    return next((text for codes, text in _REMEDIES if code in codes), _OTHER_REMEDY)


def _no_password() -> str:
    raise ValueError("the key has a password")
