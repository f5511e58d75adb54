"""The webhook's own certificate and authority: when a new one is made, as a pure function.

A new authority is published for an hour before it signs anything, and the old one stays published
for an hour after that: replicas and API servers that learn of it late see no failure.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFE: Final = timedelta(days=730)
CERTIFICATE_LIFE: Final = timedelta(days=90)
PUBLISHED_FOR: Final = timedelta(hours=1)
"""How long an authority is known to all before it signs, and after it has signed last."""

_EARLIER: Final = timedelta(hours=1)  # clocks of API servers that are behind
_KEYS: Final = ("tls.crt", "tls.key", "ca.crt", "ca.key")
_BEGIN: Final = b"-----BEGIN "


def made_at(certificate: x509.Certificate) -> datetime:
    """Return when a certificate of ours was made: it is valid from an hour before."""
    return certificate.not_valid_before_utc + _EARLIER


@dataclass(frozen=True, slots=True)
class Authority:
    """An authority: its certificate, and its key in PEM."""

    certificate: x509.Certificate
    key: bytes

    @property
    def made_at(self) -> datetime:
        """When it was made."""
        return made_at(self.certificate)

    @property
    def expires_at(self) -> datetime:
        """When it expires."""
        return self.certificate.not_valid_after_utc

    @property
    def pem(self) -> bytes:
        """The certificate in PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """Authorities, the oldest first, with the certificate that is served and its key, in PEM."""

    authorities: tuple[Authority, ...]
    certificate: bytes
    key: bytes

    @property
    def bundle(self) -> bytes:
        """The certificates of all authorities, in PEM."""
        return b"".join(each.pem for each in self.authorities)

    def to_secret(self) -> dict[str, str]:
        """Return the data of the Secret."""
        keys = b"".join(each.key for each in self.authorities)
        values = (self.certificate, self.key, self.bundle, keys)
        return {
            name: base64.b64encode(value).decode()
            for name, value in zip(_KEYS, values, strict=True)
        }

    @staticmethod
    def from_secret(data: Mapping[str, Any]) -> Certificates | None:
        """Return what the data of a Secret holds, None if it is none of `to_secret`."""
        try:
            certificate, key, bundle, keys = (
                base64.b64decode(data[name], validate=True) for name in _KEYS
            )
            authorities = tuple(
                Authority(authority, authority_key)
                for authority, authority_key in zip(
                    x509.load_pem_x509_certificates(bundle), _split(keys), strict=True
                )
            )
            x509.load_pem_x509_certificate(certificate)
        except (KeyError, TypeError, ValueError, binascii.Error):
            return None
        return Certificates(authorities=authorities, certificate=certificate, key=key)


def renewed(held: Certificates | None, names: Sequence[str], now: datetime) -> Certificates:
    """Return what is to be used: `held` itself if nothing is due.

    `names` are the DNS names under which the API server calls.
    """
    authorities = [
        each
        for each in (held.authorities if held else ())
        if each.made_at - _EARLIER <= now < each.expires_at
    ]
    if not authorities or authorities[-1].expires_at - now < AUTHORITY_LIFE / 3:
        authorities.append(_new_authority(now))
    known = [each for each in authorities if now - each.made_at >= PUBLISHED_FOR]
    signer = known[-1] if known else authorities[0]
    if held is None or not _is_fit(held, signer, names, now):
        certificate, key = _issued(signer, names, now)
        return Certificates(authorities=tuple(authorities), certificate=certificate, key=key)
    issued_at = made_at(x509.load_pem_x509_certificate(held.certificate))
    if now - issued_at >= PUBLISHED_FOR:
        # By now nobody serves a certificate of an earlier one.
        authorities = authorities[authorities.index(signer) :]
    if tuple(authorities) == held.authorities:
        return held
    return replace(held, authorities=tuple(authorities))


def _is_fit(held: Certificates, signer: Authority, names: Sequence[str], now: datetime) -> bool:
    certificate = x509.load_pem_x509_certificate(held.certificate)
    try:
        certificate.verify_directly_issued_by(signer.certificate)
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        key = serialization.load_pem_private_key(held.key, None)
    except Exception:  # noqa: BLE001 - whatever is wrong with it, a new one is made
        return False
    if key.public_key() != certificate.public_key():
        return False
    left = certificate.not_valid_after_utc - now
    is_valid = certificate.not_valid_before_utc <= now and left >= CERTIFICATE_LIFE / 3
    return is_valid and extension.value.get_values_for_type(x509.DNSName) == [*names]


def _new_authority(now: datetime) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"credspec webhook {now:%Y-%m-%d %H:%M:%S}")]
    )
    certificate = (
        _builder(now, AUTHORITY_LIFE)
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, _pem_of(key))


def _issued(signer: Authority, names: Sequence[str], now: datetime) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    authority_key = serialization.load_pem_private_key(signer.key, None)
    if not isinstance(authority_key, ec.EllipticCurvePrivateKey):
        raise TypeError("an authority of ours has a key on an elliptic curve")
    certificate = (
        _builder(now, CERTIFICATE_LIFE)
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "credspec webhook")]))
        .issuer_name(signer.certificate.subject)
        .public_key(key.public_key())
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), _pem_of(key)


def _builder(now: datetime, life: timedelta) -> x509.CertificateBuilder:
    start = now.astimezone(UTC).replace(microsecond=0)
    return (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - _EARLIER)
        .not_valid_after(start + life)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _split(keys: bytes) -> Iterator[bytes]:
    for part in keys.split(_BEGIN)[1:]:
        yield _BEGIN + part
