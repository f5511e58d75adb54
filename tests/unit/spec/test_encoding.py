import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.errors import InvalidSpecError
from credspec.spec.encoding import MAX_SPEC_BYTES, decode_spec

TEXT = '{"Name": "wébapp"}'


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        codecs.BOM_UTF8 + TEXT.encode(),
        codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
    ],
    ids=["utf-8", "utf-8-bom", "utf-16-le", "utf-16-be"],
)
def test_reads_every_encoding_that_windows_writes(data: bytes) -> None:
    assert decode_spec(data) == TEXT


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "spec-empty"),
        (b" \r\n\t", "spec-empty"),
        (codecs.BOM_UTF8, "spec-empty"),
        (codecs.BOM_UTF16_LE, "spec-empty"),
        (b"{}\0", "spec-nul"),
        ("{}".encode("utf-16-le"), "spec-nul"),
        (codecs.BOM_UTF16_BE + b"\0\0", "spec-nul"),
        (codecs.BOM_UTF32_LE + "{}".encode("utf-32-le"), "spec-nul"),
        (b'{"a": "\xff"}', "spec-encoding"),
        (b'{"a": "\xed\xa0\x80"}', "spec-encoding"),
        (codecs.BOM_UTF16_LE + b"{", "spec-encoding"),
        (codecs.BOM_UTF16_LE + b"\x00\xd8{\0", "spec-encoding"),
        (b" " * (MAX_SPEC_BYTES + 1), "spec-too-large"),
    ],
)
def test_refuses(data: bytes, code: str) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        decode_spec(data)
    assert caught.value.code == code


def test_names_offset_of_the_invalid_byte_in_the_file() -> None:
    with pytest.raises(InvalidSpecError, match="byte 0xff at offset 5 is not valid UTF-8"):
        decode_spec(codecs.BOM_UTF8 + b"{}\xff")


def test_limit_is_inclusive() -> None:
    data = b"{" + b" " * (MAX_SPEC_BYTES - 2) + b"}"
    assert len(decode_spec(data)) == MAX_SPEC_BYTES


def test_limit_holds_for_the_text_too() -> None:
    data = codecs.BOM_UTF16_LE + ("\u4e00" * 30000).encode("utf-16-le")
    assert len(data) < MAX_SPEC_BYTES
    with pytest.raises(InvalidSpecError, match="spec-too-large"):
        decode_spec(data)


@given(st.binary(max_size=200))
def test_any_bytes_give_text_or_an_error(data: bytes) -> None:
    try:
        text = decode_spec(data)
    except InvalidSpecError:
        return
    assert text.encode("utf-8")


@given(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_encodings_agree(text: str) -> None:
    if not text.strip() or text.startswith("\ufeff"):
        return
    assert decode_spec(codecs.BOM_UTF8 + text.encode()) == text
    assert decode_spec(codecs.BOM_UTF16_LE + text.encode("utf-16-le")) == text
    assert decode_spec(codecs.BOM_UTF16_BE + text.encode("utf-16-be")) == text
