"""Elements in DER and the texts in them; requests and replies are tested as such."""

from __future__ import annotations

import pytest
from cryptography.hazmat.asn1 import TLV
from hypothesis import given
from hypothesis import strategies as st

from credspec.kerberos.kdc.messages import (
    MalformedMessageError,
    decode,
    der,
    string,
    text_of,
    tlv,
)

LENGTHS = st.sampled_from([0, 1, 126, 127, 128, 129, 255, 256, 257, 65535, 65536])


@given(LENGTHS | st.integers(0, 70_000), st.sampled_from([0x04, 0x30, 0x61]))
def test_an_element_of_any_length_is_read_back(length: int, tag: int) -> None:
    element = decode(TLV, der(tag, bytes(length)))
    assert (bytes(element.tag_bytes), bytes(element.data)) == (bytes([tag]), bytes(length))


@given(st.text())
def test_texts_are_read_back_or_refused(text: str) -> None:
    if text.isprintable():
        assert text_of(string(text)) == text
    else:
        with pytest.raises(MalformedMessageError):
            text_of(string(text))


@pytest.mark.parametrize("tag", [0x04, 0x0C, 0x16])
def test_texts_of_other_kinds_are_refused(tag: int) -> None:
    """OCTET STRING, UTF8String, IA5String: a KerberosString is a GeneralString."""
    with pytest.raises(MalformedMessageError):
        text_of(tlv(der(tag, b"ldap")))


def test_a_text_that_is_no_utf_8_is_refused() -> None:
    with pytest.raises(MalformedMessageError):
        text_of(tlv(der(0x1B, b"\xff")))
