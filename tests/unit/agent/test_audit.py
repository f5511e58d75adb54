from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.agent import audit
from credspec.agent.audit import AuditLog, Caller, redacted
from credspec.errors import CredspecError
from credspec.service.events import Event


def test_lines_are_appended_and_are_roots_alone(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    log.write(Event.LEASE_GRANTED, Caller(0, 7), container="a\nb", accounts=["x"])
    path.rename(tmp_path / "rotated")
    log.write(Event.LEASE_DENIED, Caller(0, 8))
    first = json.loads((tmp_path / "rotated").read_text())
    assert (first["event"], first["event_id"], first["pid"]) == ("lease-granted", 120, 7)
    assert first["container"] == "a\nb"
    assert len(path.read_text().splitlines()) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(CredspecError, match="audit-unwritable"):
        AuditLog(tmp_path / "link").write(Event.LEASE_GRANTED, Caller(0, 1))
    assert not (tmp_path / "target").exists()


def test_a_full_disk_is_an_error() -> None:
    with pytest.raises(CredspecError, match=r"/dev/full.*audit-unwritable"):
        AuditLog(Path("/dev/full")).write(Event.LEASE_GRANTED, Caller(0, 1))


def test_of_a_document_only_the_hash_is_shown() -> None:
    assert redacted("file://www.json") == "file://www.json"
    assert redacted('raw://{"PluginInput": "secret"}').startswith("raw:sha256:")
    assert "secret" not in redacted('RAW://{"PluginInput": "secret"}')


@pytest.mark.parametrize(
    "reference",
    [
        'raw:/{"PluginInput": "secret"}',
        '{"PluginInput": "secret"}',
        ' raw://{"PluginInput": "secret"}',
        'raw:{"PluginInput": "secret"}',
        'file://{"PluginInput": "secret"}',
        'File://{"PluginInput": "secret"}',
        'file:// {"PluginInput": "secret"}',
        "file://secret:x@host",
        "registry://secret",
        "secret",
        "",
    ],
)
def test_of_whatever_may_be_a_document_only_the_hash_is_shown(reference: str) -> None:
    assert "secret" not in redacted(reference)
    assert re.fullmatch(r"(raw:)?sha256:[0-9a-f]{64}", redacted(reference))


@given(st.text(max_size=400))
def test_what_is_shown_is_a_hash_or_a_plain_name(text: str) -> None:
    for reference in (text, f"file://{text}", f"raw://{text}"):
        found = redacted(reference)
        assert len(found) <= 300
        assert re.fullmatch(r"(raw:)?sha256:[0-9a-f]{64}", found) or found == reference
        assert not set(found) & {"{", "}", '"', "\n"}


def test_plain_names_are_shown_as_they_are() -> None:
    for name in ("www.json", "sub/www-1.json", "WebApp 01.json", "größe.json"):
        assert redacted(f"file://{name}") == f"file://{name}"


async def test_a_log_that_never_answers_is_an_error_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    log = AuditLog(path)
    monkeypatch.setattr(audit, "_SECONDS", 0.05)
    with pytest.raises(CredspecError) as caught:
        await log.record(Event.LEASE_GRANTED, Caller(0, 1))
    assert caught.value.code == "audit-unwritable"
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))


def test_event_numbers_are_stable_and_distinct() -> None:
    numbers = {event.label: event.number for event in Event}
    assert len(set(numbers.values())) == len(numbers)
    assert {event.level for event in Event} <= {"info", "warning", "error"}
    assert numbers["ticket-acquired"] == 2
    assert numbers["lease-granted"] == 120
