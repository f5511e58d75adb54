"""How many fields a message of protocol buffers has, before anything is made of it.

Four megabytes of empty strings are two million objects, which hold the event loop for a tenth of a
second. The interface's requests are flat: of strings, and of fields that a newer one may have.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

MOST_FIELDS: Final = 1000
"""How many fields a request may have; the most that is of any use is a tenth of it."""

_MOST_VARINT_BYTES: Final = 10
_VARINT, _FIXED_64, _LENGTH, _FIXED_32 = 0, 1, 2, 5
_FIXED_BYTES: Final = {_FIXED_64: 8, _FIXED_32: 4}


def has_few_fields(data: bytes) -> bool:
    """Return whether `data` is whole fields, at most `MOST_FIELDS`; a group counts as none."""
    at, fields = 0, 0
    try:
        while at < len(data):
            fields += 1
            if fields > MOST_FIELDS:
                return False
            at = _end_of_field(data, at)
    except (IndexError, ValueError):
        return False
    return at == len(data)


def text_fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Return number and contents of the fields of text, bytes or messages that `data` holds.

    To be called with what `has_few_fields` is true of.
    """
    at = 0
    while at < len(data):
        key, begin = _varint(data, at)
        at = _end_of_field(data, at)
        if key & 7 == _LENGTH:
            length, begin = _varint(data, begin)
            yield key >> 3, data[begin : begin + length]


def varint(value: int) -> bytes:
    """Return a number that is not negative as messages hold it."""
    data = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def _end_of_field(data: bytes, at: int) -> int:
    key, at = _varint(data, at)
    kind = key & 7
    if kind == _LENGTH:
        length, at = _varint(data, at)
        return at + length
    if kind == _VARINT:
        return _varint(data, at)[1]
    if kind not in _FIXED_BYTES:
        raise ValueError
    return at + _FIXED_BYTES[kind]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number and where it ends; IndexError if it has no end, ValueError if a late one."""
    value = 0
    for number in range(_MOST_VARINT_BYTES):
        byte = data[at + number]
        value |= (byte & 0x7F) << (7 * number)
        if byte < 0x80:  # noqa: PLR2004 - the last one has no highest bit
            return value, at + number + 1
    raise ValueError
