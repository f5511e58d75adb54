"""The blob is hostile input as far as the parser knows: nothing but our error may come out."""

from __future__ import annotations

import struct
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.directory.managed_password import PASSWORD_BYTES, ManagedPassword
from credspec.errors import CredspecError

passwords = st.binary(min_size=PASSWORD_BYTES, max_size=PASSWORD_BYTES)
intervals = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3650))


@given(passwords, st.none() | passwords, intervals, intervals)
def test_round_trip(
    current: bytes, previous: bytes | None, query: timedelta, unchanged: timedelta
) -> None:
    password = ManagedPassword(current, previous, query, unchanged)
    blob = password.pack()
    assert ManagedPassword.unpack(blob) == password
    # The layouts that domain controllers send (reference: 290 and 548 bytes).
    assert len(blob) == (290 if previous is None else 548)


def test_a_password_may_hold_zero_units() -> None:
    current = b"\0" * PASSWORD_BYTES
    blob = ManagedPassword(current, None, timedelta(1), timedelta(1)).pack()
    assert ManagedPassword.unpack(blob).current == current


def test_padding_after_the_password_is_passed_over() -> None:
    """MS-ADTS has AlignmentPadding before the intervals; the offsets lead past it."""
    blob = bytearray(ManagedPassword(b"a" * 256, None, timedelta(hours=9), timedelta(1)).pack())
    padded = blob[:274] + b"\0" * 6 + blob[274:]
    struct.pack_into("<I", padded, 4, len(padded))
    struct.pack_into("<HH", padded, 12, 280, 288)
    assert ManagedPassword.unpack(bytes(padded)).query_interval == timedelta(hours=9)


@given(st.binary(max_size=700))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(CredspecError) as caught:
        ManagedPassword.unpack(data)
    assert caught.value.code == "managed-password-malformed"


@given(st.integers(0, 547), st.integers(0, 255))
def test_a_changed_byte_gives_a_password_or_our_error(index: int, value: int) -> None:
    blob = bytearray(ManagedPassword(b"c" * 256, b"p" * 256, timedelta(1), timedelta(1)).pack())
    blob[index] = value
    try:
        found = ManagedPassword.unpack(bytes(blob))
    except CredspecError as error:
        assert error.code == "managed-password-malformed"
    else:
        assert len(found.current) == PASSWORD_BYTES


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("value", [0, 2, 255])
def test_another_version_or_reserved_field_is_refused(index: int, value: int) -> None:
    """What a later version means by its fields is not known."""
    blob = bytearray(ManagedPassword(b"c" * 256, b"p" * 256, timedelta(1), timedelta(1)).pack())
    assert ManagedPassword.unpack(bytes(blob)).current == b"c" * 256
    if blob[index] == value:
        return
    blob[index] = value
    with pytest.raises(CredspecError, match="managed-password-malformed"):
        ManagedPassword.unpack(bytes(blob))


@pytest.mark.parametrize("length", range(0, 548, 13))
def test_truncation_is_refused(length: int) -> None:
    blob = ManagedPassword(b"c" * 256, b"p" * 256, timedelta(1), timedelta(1)).pack()
    with pytest.raises(CredspecError):
        ManagedPassword.unpack(blob[:length])


def test_five_minute_rule() -> None:
    before = ManagedPassword(b"c" * 256, b"p" * 256, timedelta(minutes=5, seconds=1), timedelta(0))
    within = ManagedPassword(b"c" * 256, b"p" * 256, timedelta(minutes=5), timedelta(1))
    young = ManagedPassword(b"c" * 256, None, timedelta(minutes=1), timedelta(1))
    assert (before.valid_now, before.current_is_next) == (b"c" * 256, False)
    assert (within.valid_now, within.current_is_next) == (b"p" * 256, True)
    assert young.valid_now is None


def test_repr_and_errors_hide_the_password() -> None:
    secret = b"S3cr" * 64
    password = ManagedPassword(secret, secret, timedelta(1), timedelta(1))
    assert "S3cr" not in repr(password)
    with pytest.raises(CredspecError) as caught:
        ManagedPassword.unpack(password.pack()[:-1])
    assert "S3cr" not in str(caught.value)
