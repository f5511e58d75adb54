"""Derivation against published vectors; against a domain's own keys it is tested in integration."""

from __future__ import annotations

import krb5
import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.kerberos.keys import (
    Enctype,
    computer_salt,
    derive_key,
    derive_keys,
    enctype_name,
    munged_utf8,
)
from credspec.kerberos.md4 import md4

PASSWORD = "password".encode("utf-16-le")
SALT = "ATHENA.MIT.EDUraeburn"


@pytest.mark.parametrize(
    ("message", "digest"),
    [
        (b"", "31d6cfe0d16ae931b73c59d7e0c089c0"),
        (b"abc", "a448017aaf21d8525fc10ae87aa6729d"),
        (b"1234567890" * 8, "e33b4ddc9c38f2199c3e7b164fcc0536"),
    ],
)
def test_md4_vectors_of_rfc_1320(message: bytes, digest: str) -> None:
    assert md4(message).hex() == digest


def test_rc4_key_is_the_nt_hash() -> None:
    key = derive_key(PASSWORD, Enctype.ARCFOUR_HMAC, SALT)
    assert key.value.hex() == "8846f7eaee8fb117ad06bdd830b7586c"


@given(st.binary(max_size=300), st.text(max_size=40), st.sampled_from([17, 18]))
def test_aes_keys_are_those_of_libkrb5(password: bytes, salt: str, enctype: int) -> None:
    octets = munged_utf8(password)
    expected = krb5.c_string_to_key(krb5.init_context(), enctype, octets, salt.encode())
    assert derive_key(password, Enctype(enctype), salt).value == expected.data


def test_salt_of_computer_accounts() -> None:
    assert computer_salt("Contoso.COM", "WebApp01$") == "CONTOSO.COMhostwebapp01.contoso.com"


def test_munging_of_what_is_not_unicode() -> None:
    lone_high, lone_low, nul, plain = "00d8", "00dc", "0000", "4100"
    raw = bytes.fromhex(lone_high + plain + lone_low + nul)
    assert munged_utf8(raw) == "�A�\x01".encode()


@given(st.binary(min_size=256, max_size=256))
def test_any_password_gives_keys_without_nul_bytes_in_between(password: bytes) -> None:
    munged = munged_utf8(password)
    assert b"\0" not in munged
    assert munged.decode("utf-8")


def test_keys_are_strongest_first_and_hidden() -> None:
    keys = derive_keys(b"\x41\x00" * 128, "X")
    assert [k.enctype for k in keys] == [18, 17, 23]
    assert [len(k.value) for k in keys] == [32, 16, 16]
    assert all(k.value.hex() not in repr(k) and str(k.value) not in repr(k) for k in keys)


def test_an_encryption_type_that_is_not_known_has_its_number_for_a_name() -> None:
    assert [enctype_name(n) for n in (18, 23, 1)] == [
        "aes256-cts-hmac-sha1-96",
        "arcfour-hmac",
        "enctype 1",
    ]
