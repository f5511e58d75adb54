"""Encryption of Kerberos: the vectors of its standards, and what changes are noticed."""

from __future__ import annotations

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.kerberos.kdc.encryption import (
    DecryptionError,
    EncryptionKey,
    UnknownChecksumError,
    _decrypt_cts,
    _encrypt_cts,
    _n_fold,
)

KEYS = st.binary(min_size=32, max_size=32).map(lambda value: EncryptionKey(18, value))
KEYS |= st.binary(min_size=16, max_size=16).map(lambda value: EncryptionKey(17, value))
CHICKEN = b"chicken teriyaki"
TEXT = b"I would like the General Gau's Chicken, please, and wonton soup."


@pytest.mark.parametrize(
    ("length", "cipher"),
    [
        (17, "c6353568f2bf8cb4d8a580362da7ff7f97"),
        (31, "fc00783e0efdb2c1d445d4c8eff7ed2297687268d6ecccc0c07b25e25ecfe5"),
        (32, "39312523a78662d5be7fcbcc98ebf5a897687268d6ecccc0c07b25e25ecfe584"),
        (
            47,
            (
                "97687268d6ecccc0c07b25e25ecfe584b3fffd940c16a18c1b5549d2f838029e"
                "39312523a78662d5be7fcbcc98ebf5"
            ),
        ),
        (
            48,
            (
                "97687268d6ecccc0c07b25e25ecfe5849dad8bbb96c4cdc03bc103e1a194bbd8"
                "39312523a78662d5be7fcbcc98ebf5a8"
            ),
        ),
        (
            64,
            (
                "97687268d6ecccc0c07b25e25ecfe58439312523a78662d5be7fcbcc98ebf5a8"
                "4807efe836ee89a526730dbc2f7bc8409dad8bbb96c4cdc03bc103e1a194bbd8"
            ),
        ),
    ],
)
def test_ciphertext_stealing(length: int, cipher: str) -> None:
    """RFC 3962, appendix B."""
    assert _encrypt_cts(CHICKEN, TEXT[:length]).hex() == cipher
    assert _decrypt_cts(CHICKEN, bytes.fromhex(cipher)) == TEXT[:length]


def test_n_fold() -> None:
    """RFC 3961, appendix A.1, as far as it has 128 bits."""
    assert _n_fold(b"kerberos").hex() == "6b65726265726f737b9b5b2b93132b93"


@given(KEYS, st.integers(1, 1000), st.binary(max_size=200))
def test_what_is_encrypted_is_decrypted(key: EncryptionKey, usage: int, plain: bytes) -> None:
    cipher = key.encrypt(usage, plain)
    assert key.decrypt(usage, cipher) == plain
    assert len(cipher) == 16 + len(plain) + 12
    with pytest.raises(DecryptionError):
        key.decrypt(usage + 1, cipher)


@given(KEYS, st.binary(max_size=100), st.data())
def test_each_change_is_noticed(key: EncryptionKey, plain: bytes, data: st.DataObject) -> None:
    cipher = bytearray(key.encrypt(7, plain))
    cipher[data.draw(st.integers(0, len(cipher) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DecryptionError):
        key.decrypt(7, bytes(cipher))


@given(KEYS, st.binary(max_size=200))
def test_anything_is_decrypted_or_refused(key: EncryptionKey, cipher: bytes) -> None:
    with pytest.raises(DecryptionError):
        key.decrypt(2, cipher)


@given(KEYS, st.integers(1, 1000))
def test_a_checksum_without_what_it_is_of_is_refused(key: EncryptionKey, usage: int) -> None:
    """A right one even: each text begins with random bytes, whose lack would show in replays."""
    of_nothing = hmac.digest(key._derived(usage, 0x55), b"", "sha1")[:12]
    for before in range(16):
        with pytest.raises(DecryptionError):
            key.decrypt(usage, bytes(before) + of_nothing)


def test_keys_of_other_kinds() -> None:
    for enctype, length in ((23, 16), (18, 16), (17, 32), (18, 0), (0, 32)):
        with pytest.raises(ValueError, match="no key of AES"):
            EncryptionKey(enctype, bytes(length))


def test_a_key_does_not_show() -> None:
    key = EncryptionKey.random()
    key.encrypt(7, b"")
    assert repr(key).count("=") == 1
    assert "enctype=" in repr(key)


def test_checksums() -> None:
    key, other = EncryptionKey.random(), EncryptionKey.random()
    checksum = key.checksum(6, b"body")
    assert key.verify(6, 16, checksum, b"body")
    assert not key.verify(6, 16, checksum, b"Body")
    assert not key.verify(7, 16, checksum, b"body")
    assert not other.verify(6, 16, checksum, b"body")
    # What Java sends.
    assert key.verify(6, 7, bytes.fromhex("841a2d689ad86bd1611447453c22c6fc"), b"body")
    for kind in (0, 1, 14, 15, -138):
        with pytest.raises(UnknownChecksumError):
            key.verify(6, kind, checksum, b"body")
