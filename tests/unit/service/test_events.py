"""The log's two formats: a line an event, whatever its fields hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from credspec.service.events import Event, emit, set_log_format

FIELDS = st.dictionaries(
    st.sampled_from(["account", "domain", "error", "lease", "zone"]),
    st.text() | st.integers() | st.none() | st.floats(allow_nan=False) | st.lists(st.text()),
)
ANY_TEXT = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def text_again() -> Iterator[None]:
    yield
    set_log_format("text")


def logged(capsys: pytest.CaptureFixture[str], event: Event, fields: dict[str, object]) -> str:
    capsys.readouterr()
    emit(event, **fields)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n")
    return err[:-1]


@ANY_TEXT
@given(event=st.sampled_from(Event), fields=FIELDS)
def test_text_is_one_line_of_keys_and_values(
    event: Event, fields: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    set_log_format("text")
    line = logged(capsys, event, fields)
    assert len(line.splitlines()) == 1
    head = re.match(
        r"timestamp='[^']+' level='([a-z]+)' event='([a-z-]+)' event_id=(\d+)(?: |$)", line
    )
    assert head is not None
    assert head.groups() == (event.level, event.label, str(event.number))
    expected = " ".join(f"{key}={value!r}" for key, value in sorted(fields.items()))
    assert line[head.end() :] == expected


@ANY_TEXT
@given(event=st.sampled_from(Event), fields=FIELDS)
def test_json_is_one_document_a_line(
    event: Event, fields: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    set_log_format("json")
    line = logged(capsys, event, fields)
    assert "\n" not in line
    found = json.loads(line)
    assert datetime.fromisoformat(found.pop("timestamp")).tzinfo == UTC
    assert found == {
        "level": event.level,
        "event": event.label,
        "event_id": event.number,
        **fields,
    }


def test_a_value_of_another_type_is_written_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    set_log_format("json")
    when = datetime(2026, 11, 27, tzinfo=UTC)
    line = logged(capsys, Event.AGENT_READY, {"at": when})
    assert json.loads(line)["at"] == "2026-11-27 00:00:00+00:00"
