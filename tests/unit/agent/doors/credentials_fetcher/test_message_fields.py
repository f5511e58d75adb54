"""How many fields a message has: by hand, and as protocol buffers itself counts them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.agent.doors.credentials_fetcher import credentialsfetcher_pb2 as wire
from credspec.agent.doors.credentials_fetcher.call_handlers import _read
from credspec.agent.doors.credentials_fetcher.message_fields import MOST_FIELDS, has_few_fields
from support.credentials_fetcher.http2_frames_by_hand import fields, varint

FIELDS = st.lists(st.tuples(st.integers(1, 2000), st.binary(max_size=300)), max_size=20)


@given(FIELDS)
def test_whole_messages_pass(values: list[tuple[int, bytes]]) -> None:
    assert has_few_fields(fields(*values))


@given(FIELDS.filter(bool), st.integers(1, 300))
def test_messages_that_are_cut_do_not(values: list[tuple[int, bytes]], cut: int) -> None:
    whole = fields(*values)
    ends = {len(fields(*values[:number])) for number in range(len(values) + 1)}
    left = max(0, len(whole) - cut)
    assert has_few_fields(whole[:left]) is (left in ends)


@given(st.binary(max_size=2000))
def test_of_any_bytes_no_more_is_made_than_fields_may_be(data: bytes) -> None:
    message = _read(wire.CreateKerberosLeaseRequest, data)
    assert message is None or len(message.credspec_contents) <= MOST_FIELDS


@pytest.mark.parametrize(
    ("data", "is_few"),
    [
        (b"", True),
        (b"\x0a\x00" * MOST_FIELDS, True),
        (b"\x0a\x00" * (MOST_FIELDS + 1), False),
        (b"\x0a\x00" * 2_000_000, False),
        (b"\x08\x01" * (MOST_FIELDS + 1), False),
        (b"\x0b" + b"\x0a\x00" * 10 + b"\x0c", False),  # a group
        (b"\x08" + b"\xff" * 9 + b"\x01", True),  # the longest number
        (b"\x08" + b"\xff" * 10 + b"\x01", False),
        (b"\x0a" + varint(2**63), False),
        (b"\x0d1234", True),
        (b"\x0912345678", True),
        (b"\x0d123", False),
        (b"\x0f", False),
    ],
)
def test_numbers_of_fields(data: bytes, is_few: bool) -> None:
    assert has_few_fields(data) is is_few


def test_a_message_of_millions_of_fields_is_refused_unread() -> None:
    assert _read(wire.CreateKerberosLeaseRequest, b"\x0a\x00" * 2_000_000) is None
