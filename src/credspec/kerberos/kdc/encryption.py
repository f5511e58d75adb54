"""AES encryption and checksums of Kerberos (RFC 3961 section 5.3, RFC 3962).

Only aes128-cts-hmac-sha1-96 and aes256-cts-hmac-sha1-96: what a decoy's session key can be.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import md5
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB

from credspec.kerberos.keys import AES_ENCTYPES, Enctype

_BLOCK: Final = 16
_MAC: Final = 12
_ZEROS: Final = bytes(_BLOCK)
_KEY_BYTES: Final = {
    Enctype.AES128_CTS_HMAC_SHA1_96: 16,
    Enctype.AES256_CTS_HMAC_SHA1_96: 32,
}
_KEYED_CHECKSUMS: Final = {
    15: Enctype.AES128_CTS_HMAC_SHA1_96,
    16: Enctype.AES256_CTS_HMAC_SHA1_96,
}
_RSA_MD5: Final = 7  # what Java sends, inside of what is encrypted
_CHECKSUM_KEY, _ENCRYPTION_KEY, _INTEGRITY_KEY = 0x99, 0xAA, 0x55  # RFC 3961 5.3


class DecryptionError(Exception):
    """Something was not encrypted with this key for this use, or was changed since."""


class UnknownChecksumError(Exception):
    """A checksum is of a kind that is not taken."""


@dataclass(frozen=True, slots=True)
class EncryptionKey:
    """A key of 16 or 32 bytes; `enctype` is a number of RFC 3961 section 8.

    Raises:
        ValueError: it is no key of AES.
    """

    enctype: int
    value: bytes = field(repr=False)
    _derived_keys: dict[tuple[int, int], bytes] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if self.enctype not in AES_ENCTYPES or len(self.value) != _KEY_BYTES[Enctype(self.enctype)]:
            raise ValueError("no key of AES")

    @classmethod
    def random(cls) -> EncryptionKey:
        """Return a new key of AES256."""
        return cls(Enctype.AES256_CTS_HMAC_SHA1_96, os.urandom(32))

    def encrypt(self, usage: int, plain: bytes) -> bytes:
        """Return the ciphertext for a key usage number (RFC 4120 7.5.1)."""
        text = os.urandom(_BLOCK) + plain
        mac = hmac.digest(self._derived(usage, _INTEGRITY_KEY), text, "sha1")[:_MAC]
        return _encrypt_cts(self._derived(usage, _ENCRYPTION_KEY), text) + mac

    def decrypt(self, usage: int, cipher: bytes) -> bytes:
        """Return the plain text.

        Raises:
            DecryptionError: another key, another use, or a change.
        """
        if len(cipher) < _BLOCK + _MAC:
            raise DecryptionError
        text = _decrypt_cts(self._derived(usage, _ENCRYPTION_KEY), cipher[:-_MAC])
        mac = hmac.digest(self._derived(usage, _INTEGRITY_KEY), text, "sha1")[:_MAC]
        if not hmac.compare_digest(mac, cipher[-_MAC:]):
            raise DecryptionError
        return text[_BLOCK:]

    def checksum(self, usage: int, data: bytes) -> bytes:
        """Return the keyed checksum of some data."""
        return hmac.digest(self._derived(usage, _CHECKSUM_KEY), data, "sha1")[:_MAC]

    def verify(self, usage: int, kind: int, checksum: bytes, data: bytes) -> bool:
        """Return whether a checksum of type `kind` (RFC 3961 section 8) is that of some data.

        One without a key counts as well: the authenticator around it is encrypted.

        Raises:
            UnknownChecksumError: the type is not one of this key, nor RSA-MD5.
        """
        if kind == _RSA_MD5:
            right = md5(data, usedforsecurity=False).digest()
        elif _KEYED_CHECKSUMS.get(kind) == self.enctype:
            right = self.checksum(usage, data)
        else:
            raise UnknownChecksumError
        return hmac.compare_digest(right, checksum)

    def _derived(self, usage: int, purpose: int) -> bytes:
        """Return the key for one usage and purpose: DK of RFC 3961 5.1."""
        derived = self._derived_keys.get((usage, purpose), b"")
        if derived:
            return derived
        encryptor = Cipher(AES(self.value), ECB()).encryptor()  # noqa: S305 - of one block CBC is ECB
        block = _n_fold(usage.to_bytes(4, "big") + bytes([purpose]))
        while len(derived) < len(self.value):
            block = encryptor.update(block)
            derived += block
        self._derived_keys[usage, purpose] = derived = derived[: len(self.value)]
        return derived


@lru_cache(64)
def _n_fold(constant: bytes) -> bytes:
    """Return 128 bits made of a constant (RFC 3961 5.1)."""
    size, length = _BLOCK, len(constant)
    bits = length * 8
    number = int.from_bytes(constant, "big")
    copies = b""
    # As many copies as make a multiple of both lengths, each turned by 13 bits more.
    while not copies or len(copies) % size:
        turn = 13 * (len(copies) // length) % bits
        turned = (number >> turn | number << (bits - turn)) & ((1 << bits) - 1)
        copies += turned.to_bytes(length, "big")
    total = sum(int.from_bytes(copies[i : i + size], "big") for i in range(0, len(copies), size))
    most = (1 << size * 8) - 1
    while total > most:
        total = (total & most) + (total >> size * 8)
    return total.to_bytes(size, "big")


def _encrypt_cts(key: bytes, text: bytes) -> bytes:
    """Encrypt one block or more with ciphertext stealing (RFC 3962 section 5)."""
    padding = -len(text) % _BLOCK
    encryptor = Cipher(AES(key), CBC(_ZEROS)).encryptor()
    cipher = encryptor.update(text + bytes(padding))
    if len(cipher) == _BLOCK:
        return cipher
    last = cipher[-2 * _BLOCK : -_BLOCK]
    return cipher[: -2 * _BLOCK] + cipher[-_BLOCK:] + last[: _BLOCK - padding]


def _decrypt_cts(key: bytes, cipher: bytes) -> bytes:
    if len(cipher) == _BLOCK:
        return Cipher(AES(key), CBC(_ZEROS)).decryptor().update(cipher)
    length = len(cipher) % _BLOCK or _BLOCK
    before, second = cipher[: -_BLOCK - length], cipher[-_BLOCK - length : -length]
    last = cipher[-length:]
    # The block before the end, decrypted, has the bytes that were stolen for the end.
    mixed = Cipher(AES(key), ECB()).decryptor().update(second)  # noqa: S305 - one block
    whole = last + mixed[length:]
    text = Cipher(AES(key), CBC(_ZEROS)).decryptor().update(before + whole + second)
    return text[: len(cipher)]
