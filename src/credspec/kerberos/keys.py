"""Kerberos keys of a gMSA from its managed password (RFC 3961, RFC 3962, MS-KILE 3.1.1.2).

The password is 128 random UTF-16 code units, most of the time not valid Unicode: AES keys come from
its munged UTF-8 form, as Active Directory derives them; RC4 keys from the raw bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from credspec.kerberos.md4 import md4

DEFAULT_ITERATIONS: Final = 4096
"""Iterations of string-to-key where nobody names another number (RFC 3962 section 4)."""

_KEY_BYTES: Final = {17: 16, 18: 32}
_KERBEROS: Final = bytes.fromhex("6b65726265726f737b9b5b2b93132b93")  # that word, folded


class Enctype(IntEnum):
    """Encryption types that gMSAs use (Kerberos parameters registry of IANA)."""

    AES128_CTS_HMAC_SHA1_96 = 17
    AES256_CTS_HMAC_SHA1_96 = 18
    ARCFOUR_HMAC = 23


def enctype_name(enctype: int) -> str:
    """Return the name of an encryption type as klist prints it; its number if it is unknown."""
    try:
        return Enctype(enctype).name.lower().replace("_", "-")
    except ValueError:
        return f"enctype {enctype}"


AES_ENCTYPES: Final = (Enctype.AES256_CTS_HMAC_SHA1_96, Enctype.AES128_CTS_HMAC_SHA1_96)
"""The encryption types whose keys are salted and stretched, strongest first."""


@dataclass(frozen=True, slots=True)
class Key:
    """A long-term key; its bytes do not show in the repr."""

    enctype: Enctype
    value: bytes = field(repr=False)


def computer_salt(realm: str, account_name: str) -> str:
    """Return the salt of a computer-like account, gMSAs included (MS-KILE 3.1.1.2).

    `account_name` is the sAMAccountName, with or without its trailing ``$``.
    """
    name = account_name.removesuffix("$").lower()
    return f"{realm.upper()}host{name}.{realm.lower()}"


def munged_utf8(password: bytes) -> bytes:
    """Return the UTF-8 form that string-to-key takes.

    `password` is UTF-16LE. Lone surrogates become U+FFFD and U+0000 becomes U+0001.
    """
    return password.decode("utf-16-le", "replace").replace("\0", "\x01").encode()


def derive_key(password: bytes, enctype: Enctype, salt: str) -> Key:
    """Derive one key of a managed password.

    `password` is UTF-16LE without terminator; `salt` is ignored by RC4. AES takes one or two
    milliseconds, during which other threads run, as they do not in libkrb5's own string-to-key.
    """
    if enctype is Enctype.ARCFOUR_HMAC:
        return Key(enctype, md4(password))
    return _string_to_key(munged_utf8(password), enctype, salt.encode(), DEFAULT_ITERATIONS)


def derive_user_key(password: str, enctype: Enctype, salt: bytes, iterations: int) -> Key:
    """Derive an AES key of a user's password (RFC 3962 section 4); `salt` is the domain's.

    Other threads run meanwhile, as they do with `derive_key`.
    """
    text = password.encode("utf-8", "surrogateescape")
    return _string_to_key(text, enctype, salt, iterations)


def _string_to_key(password: bytes, enctype: Enctype, salt: bytes, iterations: int) -> Key:
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import ECB
    from cryptography.hazmat.primitives.hashes import SHA1
    from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

    length = _KEY_BYTES[enctype]
    base = PBKDF2HMAC(SHA1(), length, salt, iterations).derive(password)  # noqa: S303
    # DK of RFC 3961 5.1: each block is the one before, encrypted; of one block CBC is ECB.
    encryptor = Cipher(AES(base), ECB()).encryptor()  # noqa: S305
    first = encryptor.update(_KERBEROS)
    return Key(enctype, (first + encryptor.update(first))[:length])


def derive_keys(password: bytes, salt: str) -> tuple[Key, ...]:
    """Derive the AES256, AES128 and RC4 keys, strongest first."""
    strongest_first = (
        Enctype.AES256_CTS_HMAC_SHA1_96,
        Enctype.AES128_CTS_HMAC_SHA1_96,
        Enctype.ARCFOUR_HMAC,
    )
    return tuple(derive_key(password, enctype, salt) for enctype in strongest_first)
