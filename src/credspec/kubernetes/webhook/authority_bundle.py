"""Which authorities the API server trusts for the webhook, while replicas change to a new one."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from credspec.kubernetes.webhook.certificates import PUBLISHED_FOR, Certificates, made_at

_MAX_KEPT: Final = 8


def bundle_to_publish(used: Certificates, published: str, now: datetime) -> str:
    """Return the ``caBundle`` for the certificates that are in use, in base64 as it was found.

    Its own authorities come first, the newest before all. Others that are `published` already stay
    beside them until the newest of all is an hour old, as long as they are valid: the Secret was
    emptied or written over, and another replica still serves what one of them has signed, or it has
    made a new one meanwhile.
    """
    own = [each.certificate for each in reversed(used.authorities)]
    others = [
        each
        for each in _certificates(published)
        if each not in own and each.not_valid_before_utc <= now < each.not_valid_after_utc
    ]
    if now - max(made_at(each) for each in [*own, *others]) >= PUBLISHED_FOR:
        others = []
    kept = [*own, *dict.fromkeys(others)][: len(own) + _MAX_KEPT]
    pem = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in kept)
    return base64.b64encode(pem).decode()


def _certificates(bundle: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(base64.b64decode(bundle, validate=True))
    except (ValueError, binascii.Error):
        return []
