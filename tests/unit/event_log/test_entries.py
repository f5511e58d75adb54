"""Lines of both logs become entries; whatever else a line is, it is none."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.event_log.entries import AUDIT, LOG, audit_entry, log_entry
from credspec.service import events
from credspec.service.events import Event, emit

GRANT = {
    "time": "2026-01-31T10:00:00.123+00:00",
    "event": "lease-granted",
    "event_id": 120,
    "uid": 1000,
    "pid": 7,
    "decision": "granted",
    "lease": "ab" * 16,
    "container": "0123456789abcdef",
    "spec": "file://www.json",
    "domain": "contoso.com",
    "accounts": ["WebApp01", "Other@fabrikam.com"],
}
VALUES = st.one_of(
    st.text(),
    st.integers(),
    st.none(),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(st.text(), max_size=3),
)
FIELDS = st.dictionaries(st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True), VALUES, max_size=4)


def emitted(log_format: str, fields: dict[str, object]) -> str:
    before, stream = events._render, io.StringIO()
    events.set_log_format(log_format)
    try:
        with redirect_stderr(stream):
            emit(Event.REFRESH_FAILED, **fields)
    finally:
        events._render = before
    return stream.getvalue().removesuffix("\n")


def test_a_line_of_the_audit_log() -> None:
    entry = audit_entry(json.dumps(GRANT))
    assert entry is not None
    assert entry.time == datetime(2026, 1, 31, 10, 0, 0, 123000, tzinfo=UTC)
    assert (entry.source, entry.event, entry.event_id) == (AUDIT, "lease-granted", 120)
    assert entry.level == "info"
    assert entry.accounts == ("webapp01@contoso.com", "other@fabrikam.com")
    assert entry.detail() == (
        "webapp01@contoso.com, other@fabrikam.com  container 0123456789ab  "
        "by user 1000 (process 7)  spec file://www.json"
    )
    assert entry.to_json() == {**GRANT, "source": "audit", "level": "info"}


def test_a_denial_shows_its_codes_unless_the_log_has_the_text() -> None:
    denial = {
        **GRANT,
        "event": "lease-denied",
        "event_id": 121,
        "errors": ["spec-not-json", "spec-field-missing"],
    }
    entry = audit_entry(json.dumps(denial))
    assert entry is not None
    assert entry.level == "warning"
    assert entry.detail().endswith("[spec-not-json] [spec-field-missing]")
    assert (
        entry.with_fields({"error": "why [spec-not-json]"})
        .detail()
        .endswith("www.json  why [spec-not-json]")
    )


@pytest.mark.parametrize("log_format", ["text", "json"])
@given(fields=FIELDS)
def test_what_the_agent_logs_is_read_in_both_formats(
    log_format: str, fields: dict[str, object]
) -> None:
    line = emitted(log_format, fields)
    entry = log_entry(line)
    shadowing = {"timestamp", "time", "level", "event", "event_id"} & fields.keys()
    if shadowing:
        return
    assert entry is not None, line
    assert (entry.source, entry.event_id, entry.level) == (LOG, 8, "warning")
    assert dict(entry.fields) == fields
    assert entry.detail() is not None


@given(line=st.one_of(st.text(), FIELDS.map(json.dumps), st.text().map("timestamp=".__add__)))
def test_any_other_line_is_no_entry(line: str) -> None:
    assert log_entry(line) is None
    assert audit_entry(line) is None


@pytest.mark.parametrize(
    "change",
    [
        {"time": "yesterday"},
        {"time": "2026-01-31T10:00:00"},
        {"time": None},
        {"event": 1},
        {"event_id": "120"},
        {"event_id": True},
    ],
)
def test_a_line_without_what_every_entry_has_is_none(change: dict[str, object]) -> None:
    assert audit_entry(json.dumps(GRANT | change)) is None


def test_a_line_that_is_too_long_or_too_deep_is_none() -> None:
    assert audit_entry(json.dumps({**GRANT, "spec": "x" * (1 << 18)})) is None
    assert audit_entry("[" * 100_000) is None


def test_the_accounts_of_an_identity() -> None:
    line = emitted("text", {"identity": "webapp01@contoso.com (a provider)"})
    entry = log_entry(line)
    assert entry is not None
    assert entry.accounts == ("webapp01@contoso.com",)
