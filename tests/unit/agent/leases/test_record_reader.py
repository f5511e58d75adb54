"""Records of the journal, of which what they have alike is read once."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from credspec.agent.leases.record import LeaseRecord, record_from_json
from credspec.agent.leases.record_reader import RecordReader, record_text

RECORD = LeaseRecord(
    lease_id="0" * 32,
    container='a", "uid": "b',
    runtime_state='/run/x", "uid": 7, "y',
    uid=0,
    gid=0,
    domain="example.test",
    default_account="WebApp01",
    accounts=("WebApp01", "Other@other.test"),
    created=datetime(2026, 1, 1, tzinfo=UTC),
    created_monotonic=5.5,
    ticket_start=datetime(2026, 1, 1, tzinfo=UTC),
    ticket_end=datetime(2026, 1, 2, tzinfo=UTC),
    ready=True,
)
OTHER = replace(
    RECORD,
    lease_id="1" * 32,
    container="c2",
    runtime_state="/run/2",
    created=datetime(2026, 2, 1, tzinfo=UTC),
    created_monotonic=None,
)
odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.lists(st.text()),
    st.just({}),
)
names = st.sampled_from(["format", "more", "uid", *RECORD.to_json()])


def whole(lease_id: str, data: bytes) -> LeaseRecord:
    raw = json.loads(data)
    if raw.pop("format", 1) not in (1, 2):
        raise ValueError
    return record_from_json(lease_id, raw)


def outcome(read: Any, data: bytes) -> LeaseRecord | None:
    try:
        found: LeaseRecord = read(OTHER.lease_id, data)
    except Exception:  # noqa: BLE001 - of any kind, as is said
        return None
    return found


def warm() -> RecordReader:
    """A reader that knows what is alike in both."""
    reader = RecordReader()
    assert reader.read(RECORD.lease_id, record_text(RECORD)) == RECORD
    return reader


def test_records_that_are_alike_but_for_their_containers() -> None:
    assert warm().read(OTHER.lease_id, record_text(OTHER)) == OTHER
    assert record_text(RECORD).partition(b', "uid": 0')[2] in record_text(OTHER)


@given(changes=st.dictionaries(names, odd, max_size=3), order=st.randoms())
@example(changes={"lease_id": "2" * 32}, order=None)
@example(changes={"container": 1}, order=None)
@example(changes={"runtime_state": "\0"}, order=None)
@example(changes={"created": "1969-01-01T00:00:00+00:00"}, order=None)
@example(changes={"created": "0001-01-01T00:00:00+23:00"}, order=None)
@example(changes={"created": None}, order=None)
@example(changes={"created_monotonic": float("inf")}, order=None)
@example(changes={"created_monotonic": True}, order=None)
@example(changes={"format": 3}, order=None)
@example(changes={"format": []}, order=None)
def test_whatever_is_written_it_is_read_as_by_itself(changes: dict[str, Any], order: Any) -> None:
    values = json.loads(record_text(OTHER)) | changes
    members = list(values.items())
    if order is not None and order.random() < 0.5:
        order.shuffle(members)
    data = json.dumps(dict(members)).encode()
    assert outcome(warm().read, data) == outcome(whole, data)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b', "uid": 0', b', "uid": 0, "container": "another"'),
        (b', "uid": 0', b', "uid": 0, "format": 9'),
        (b', "uid": 0', b', "uid": 0, "uid": 7'),
        (b', "uid": 0', b', "uid": 0} {"uid": 0'),
        (b'"container": "c2"', b'"container": {"a": 1, "uid": 0}'),
        (b'"container": "c2"', b'"container": {"a": 1'),
        (b'"container": "c2"', b'"container": "c2", "container": "c3"'),
        (b'"container": "c2"', b'"container": "c2\xff"'),
        (b'"container": "c2"', b'"more": 1, "container": "c2"'),
        (b'"container": "c2", ', b""),
        (b"{", b"[{"),
        (b"{", b""),
        (b"}", b""),
        (b"}", b"}}"),
    ],
)
@pytest.mark.parametrize("is_known", [True, False])
def test_text_that_the_journal_does_not_write(old: bytes, new: bytes, *, is_known: bool) -> None:
    data = record_text(OTHER).replace(old, new, 1)
    reader = warm() if is_known else RecordReader()
    for _ in range(2):
        assert outcome(reader.read, data) == outcome(whole, data)
    assert reader.read(RECORD.lease_id, record_text(RECORD)) == RECORD
