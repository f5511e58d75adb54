from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from credspec.agent.leases.journal import FORMAT, MAX_RECORD_BYTES, TICKETS_FORMAT, Journal
from credspec.agent.leases.record import LeaseRecord
from credspec.errors import CredspecError
from support.machine.open_files import opened_below

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
    for name in ("strange", "2" * 33, "2" * 31, f"x{'2' * 32}"):
        (tmp_path / f"{name}.json").write_text("{}")
    assert list(journal.records()) == [RECORD, "1" * 32]


def test_a_record_says_its_format_and_one_of_another_is_not_read(tmp_path: Path) -> None:
    """A lease of a later version may have limits that this one does not know."""
    path = tmp_path / f"{RECORD.lease_id}.json"
    Journal(tmp_path).write(RECORD)
    values = json.loads(path.read_text())
    assert values["format"] == FORMAT == 1
    for other in (0, TICKETS_FORMAT + 1, "1", None):
        path.write_text(json.dumps(values | {"format": other}))
        assert list(Journal(tmp_path).records()) == [RECORD.lease_id]


@pytest.mark.parametrize(
    "more",
    [
        {"tickets": "services", "services": ("HTTP/www.a.test", "MSSQLSvc/sql:1433")},
        {"tickets": "broker", "services": ("HTTP/*.a.test",)},
        {"revoked": True},
    ],
)
def test_a_lease_that_must_get_no_tgt_is_not_read_by_older_agents(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    """They ignore what they do not know, and would write a TGT."""
    record = replace(RECORD, **more)
    Journal(tmp_path).write(record)
    assert list(Journal(tmp_path).records()) == [record]
    values = json.loads((tmp_path / f"{RECORD.lease_id}.json").read_text())
    assert values["format"] == TICKETS_FORMAT == 2


def test_a_record_of_an_older_agent_is_of_a_lease_with_a_tgt(tmp_path: Path) -> None:
    values = RECORD.to_json()
    for name in ("tickets", "services", "revoked", "mode"):
        del values[name]
    (tmp_path / f"{RECORD.lease_id}.json").write_text(json.dumps({"format": FORMAT} | values))
    [found] = Journal(tmp_path).records()
    assert isinstance(found, LeaseRecord)
    assert (found.has_tgt, found.services, found.revoked) == (True, (), False)
    assert found.mode == 0o600


@pytest.mark.parametrize(
    "more",
    [
        {"tickets": "all"},
        {"tickets": None},
        {"services": ["krbtgt/A.TEST"]},
        {"services": [1]},
        {"services": "HTTP/a"},
        {"revoked": 1},
    ],
)
def test_a_record_with_tickets_that_do_not_exist_is_unreadable(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    path = tmp_path / f"{RECORD.lease_id}.json"
    path.write_text(json.dumps({"format": FORMAT} | RECORD.to_json() | more))
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


WRONG_VALUES: dict[str, list[Any]] = {
    "lease_id": ["1" * 32, "0" * 31, 5, None],
    "container": [5, None, []],
    "runtime_state": ["/run/\0", 5, None],
    "domain": [5, None, "", "a/b", "../x"],
    "default_account": [5, None, "", "a/b", "a@../x"],
    "accounts": [[], None, 5, [5], [""], ["a/b"], ["a@b/c"]],
    "created": [None, "x", 5, "1970-01-01T00:00:00+00:00", "2200-01-01T00:00:00+00:00"],
    "ticket_start": ["x", 5, "1969-01-01T00:00:00+00:00"],
    "ticket_end": ["x", 5, "9999-12-31T00:00:00+00:00"],
    "keytab_due": ["x", 5, "0001-01-01T00:00:00+00:00"],
    "uid": [-1, 2**32, 1.5, "1", None, True],
    "gid": [-1, 2**32, 1.5, "1", None, False],
    "mode": [-1, 2**32, "0600", None],
    "user": [-1, 2**32, "x", True],
    "ready": [0, 1, None, "true"],
    "keytab": [0, None, "x"],
    "name_fallback": [0, None],
    "replay_cache": [1, None],
    "host_source": [5, "x", [], {"guid": 5}, {"guid": None}],
    "place": [
        5,
        "",
        "tree/a/b",
        "x/tree/a/b",
        "/a",
        "/a/b",
        "/a/../b/c",
        "/a//b/c",
        "/a/./b/c",
        "/a/b/c\0",
    ],
    "spec_source": ["", "registry", 5, None],
    "created_monotonic": ["x", 5, float("nan"), float("inf")],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name in WRONG_VALUES for value in WRONG_VALUES[name]]
)
def test_a_record_with_any_wrong_field_is_named_and_not_taken(
    tmp_path: Path, name: str, value: object
) -> None:
    """Whatever it is, the agent starts, and knows which lease it cannot take over."""
    journal = Journal(tmp_path)
    journal.write(RECORD)
    path = tmp_path / f"{RECORD.lease_id}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    assert list(journal.records()) == [RECORD.lease_id]


def test_a_domain_counts_also_where_all_accounts_name_their_own(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    accounts = ("WebApp01@a.test", "WebApp02@b.test")
    for domain in ("example.test", "../x"):
        record = replace(RECORD, domain=domain, accounts=accounts, default_account=accounts[0])
        journal.write(record)
        assert list(journal.records()) == [record if domain[0] != "." else record.lease_id]


def test_what_a_host_logs_on_with_does_not_show() -> None:
    assert "S3cr" not in repr(replace(RECORD, host_source={"guid": "{0}", "input": "S3cr"}))


def test_a_ticket_that_ends_before_it_starts_is_none(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    moments = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2)]
    for start, end in (moments, moments[::-1], [moments[0]] * 2, (None, moments[0])):
        record = replace(RECORD, ticket_start=start, ticket_end=end)
        journal.write(record)
        is_sound = start is None or start <= end
        assert list(journal.records()) == [record if is_sound else record.lease_id]


def test_every_field_comes_back(tmp_path: Path) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    record = replace(
        RECORD,
        uid=0,
        gid=2**32 - 1,
        ready=True,
        ticket_start=moment,
        ticket_end=moment + timedelta(hours=10),
        user=0,
        mode=0o640,
        keytab=True,
        keytab_due=moment + timedelta(days=20),
        name_fallback=True,
        replay_cache=True,
        host_source={"guid": "{0}", "input": "x"},
        place="/tree/lease/account",
        spec_source="grpc",
        created_monotonic=0.5,
    )
    journal = Journal(tmp_path)
    journal.write(record)
    (found,) = journal.records()
    assert found == record
    assert isinstance(found, LeaseRecord)
    assert found.host_source == record.host_source


@pytest.mark.parametrize(
    "lease_id", ["0" * 31, "0" * 33, "A" * 32, "0" * 32 + "\n", "0" * 31 + "/"]
)
def test_what_is_no_id_never_becomes_a_path(tmp_path: Path, lease_id: str) -> None:
    journal = Journal(tmp_path)
    with pytest.raises(ValueError, match="not a lease id"):
        journal.write(replace(RECORD, lease_id=lease_id))
    with pytest.raises(ValueError, match="not a lease id"):
        journal.remove(lease_id)
    assert list(tmp_path.iterdir()) == []


def test_records_are_read_without_following_links_or_waiting(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    directory.mkdir()
    journal = Journal(directory)
    journal.write(RECORD)
    (directory / f"{RECORD.lease_id}.json").rename(tmp_path / "elsewhere.json")
    (directory / f"{'1' * 32}.json").symlink_to(tmp_path / "elsewhere.json")
    os.mkfifo(directory / f"{'2' * 32}.json")
    (directory / f"{'3' * 32}.json").mkdir()
    assert list(journal.records()) == ["1" * 32, "2" * 32, "3" * 32]
    assert opened_below(tmp_path) == []


def test_the_longest_record_is_read_and_none_that_is_longer(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    spare = MAX_RECORD_BYTES - len(json.dumps({"format": FORMAT, **RECORD.to_json()}))
    longest = replace(RECORD, container=RECORD.container + "x" * spare)
    journal.write(longest)
    assert list(journal.records()) == [longest]
    with pytest.raises(CredspecError, match="journal-record-too-long"):
        journal.write(replace(longest, container=longest.container + "x"))
    assert list(journal.records()) == [longest]
    path = tmp_path / f"{RECORD.lease_id}.json"
    path.write_text(path.read_text() + " ")
    assert list(journal.records()) == [RECORD.lease_id]


def test_what_cannot_be_removed_is_told(tmp_path: Path) -> None:
    (tmp_path / f"{RECORD.lease_id}.json").mkdir()
    with pytest.raises(CredspecError, match="journal-unwritable"):
        Journal(tmp_path).remove(RECORD.lease_id)


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    journal.write(RECORD)

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fails)
        with pytest.raises(CredspecError, match="journal-unwritable"):
            journal.write(replace(RECORD, ready=True))
    assert list(journal.records()) == [RECORD]
    assert len(list(tmp_path.iterdir())) == 1


def test_leftovers_of_a_run_that_was_killed_go(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(RECORD)
    (tmp_path / f"{'1' * 32}.new").write_text("{")
    (tmp_path / ".credspec-0123456789abcdef").write_text("{")
    (tmp_path / f"{'2' * 32}.new").mkdir()  # what cannot be removed holds up nothing
    journal.remove_leftovers()
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".new"]
    assert list(journal.records()) == [RECORD]


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
