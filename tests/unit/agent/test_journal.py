from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from credspec.agent.journal import FORMAT, Journal, LeaseRecord
from credspec.errors import CredspecError

RECORD = LeaseRecord(
    lease_id="0" * 32,
    container="c1",
    runtime_state="/run/runc/c1",
    uid=1000,
    gid=1000,
    domain="example.test",
    default_account="WebApp01",
    accounts=("WebApp01", "WebApp02"),
    created=datetime(2026, 1, 1, tzinfo=UTC),
)


def test_round_trip(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(RECORD)
    ready = replace(RECORD, ready=True)
    journal.write(ready)
    assert list(journal.records()) == [ready]
    journal.remove(RECORD.lease_id)
    journal.remove(RECORD.lease_id)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"created": 1}', '{"created": "x"}'])
def test_an_unreadable_record_is_named_and_harms_no_other(tmp_path: Path, text: str) -> None:
    journal = Journal(tmp_path)
    journal.write(RECORD)
    (tmp_path / f"{'1' * 32}.json").write_text(text)
    (tmp_path / "strange.json").write_text("{}")
    assert list(journal.records()) == [RECORD, "1" * 32]


def test_a_record_says_its_format_and_one_of_another_is_not_read(tmp_path: Path) -> None:
    """A lease of a later version may have limits that this one does not know."""
    path = tmp_path / f"{RECORD.lease_id}.json"
    Journal(tmp_path).write(RECORD)
    values = json.loads(path.read_text())
    assert values["format"] == FORMAT == 1
    for other in (0, 2, "1", None):
        path.write_text(json.dumps(values | {"format": other}))
        assert list(Journal(tmp_path).records()) == [RECORD.lease_id]


def test_fields_of_other_versions_of_the_same_format_are_ignored(tmp_path: Path) -> None:
    """Also without a format's number, as before there was one."""
    path = tmp_path / f"{RECORD.lease_id}.json"
    path.write_text(json.dumps(RECORD.to_json() | {"later": [1]}))
    assert list(Journal(tmp_path).records()) == [RECORD]


def test_an_id_never_becomes_a_path(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a lease id"):
        Journal(tmp_path).remove("../../etc/passwd")


def test_unwritable(tmp_path: Path) -> None:
    with pytest.raises(CredspecError, match="journal-unwritable"):
        Journal(tmp_path / "gone").write(RECORD)


@pytest.mark.parametrize(
    ("place", "given", "expected"),
    [
        (None, None, "file"),
        ("/tree/a/b", None, "grpc"),
        (None, "raw", "raw"),
        ("/tree/a/b", "grpc", "grpc"),
    ],
)
def test_where_the_spec_came_from(
    tmp_path: Path, place: str | None, given: str | None, expected: str
) -> None:
    """Also of records of a version that did not write it down."""
    values = RECORD.to_json() | {"place": place, "spec_source": given}
    if given is None:
        del values["spec_source"]
    (tmp_path / f"{RECORD.lease_id}.json").write_text(json.dumps(values))
    (record,) = Journal(tmp_path).records()
    assert isinstance(record, LeaseRecord)
    assert record.spec_source == expected
