"""The bytes of a credential spec file to text.

Windows writes these files in several encodings: the module writes ASCII, editors write UTF-8 with
or without a byte order mark, and redirection in Windows PowerShell writes UTF-16.
"""

from __future__ import annotations

import codecs
from typing import Final

from credspec.errors import InvalidSpecError

MAX_SPEC_BYTES: Final = 65536
"""Largest document in bytes; the limit Kubernetes sets on a spec written into a pod."""

_BYTE_ORDER_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_ENCODINGS: Final = "UTF-8, or UTF-16 with a byte order mark"


def decode_spec(data: bytes) -> str:
    """Return the text of a credential spec file, without its byte order mark.

    Accepts UTF-8 with or without a byte order mark and UTF-16 of either byte order with one.

    Raises:
        InvalidSpecError: ``spec-too-large``, ``spec-empty``, ``spec-nul`` or ``spec-encoding``.
    """
    check_size(data)
    encoding, body = "utf-8", data
    for mark, name in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            encoding, body = name, data[len(mark) :]
            break
    if encoding == "utf-8" and b"\0" in body:
        raise InvalidSpecError.of(
            "spec-nul",
            f"a NUL byte at offset {data.index(0)}",
            expected=_ENCODINGS,
            remedy="if the file is UTF-16 without a byte order mark, save it as UTF-8",
        )
    try:
        text = body.decode(encoding)
    except UnicodeDecodeError as error:
        offset = len(data) - len(body) + error.start
        raise InvalidSpecError.of(
            "spec-encoding",
            f"byte 0x{data[offset]:02x} at offset {offset} is not valid {encoding.upper()}",
            expected=_ENCODINGS,
            remedy="save the file as UTF-8",
        ) from None
    check_text(text)
    return text


def check_size(data: bytes) -> None:
    """Refuse a document of more than `MAX_SPEC_BYTES`.

    Raises:
        InvalidSpecError: ``spec-too-large``.
    """
    if len(data) > MAX_SPEC_BYTES:
        raise InvalidSpecError.of(
            "spec-too-large",
            f"more than {MAX_SPEC_BYTES} bytes",
            expected=f"at most {MAX_SPEC_BYTES} bytes (64 KiB)",
        )


def check_text(text: str) -> None:
    """Refuse text that is too large, has nothing in it or holds a NUL character.

    Raises:
        InvalidSpecError: ``spec-too-large``, ``spec-empty`` or ``spec-nul``.
    """
    # Lone surrogates are counted here and refused later, where their field can be named.
    check_size(text.encode("utf-8", "surrogatepass"))
    if not text.strip():
        raise InvalidSpecError.of("spec-empty", "nothing", expected="a JSON object")
    if "\0" in text:
        raise InvalidSpecError.of(
            "spec-nul", f"a NUL character at position {text.index(chr(0))}", expected="JSON text"
        )
