"""Entries of both logs in one order, each decision once, and filters."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from credspec.event_log import timeline as timeline_module
from credspec.event_log.entries import AUDIT, LOG, Entry
from credspec.event_log.timeline import Filter, Timeline
from credspec.service.events import Event

START = datetime(2026, 1, 31, tzinfo=UTC)
LEASE = "ab" * 16


def entry(event: Event, seconds: float = 0, source: str = AUDIT, **fields: Any) -> Entry:
    return Entry(
        time=START + timedelta(seconds=seconds),
        source=source,
        event=event.label,
        event_id=event.number,
        level=event.level,
        fields=fields,
    )


def taken(*entries: Entry) -> list[Entry]:
    timeline = Timeline()
    timeline.add(entries)
    return timeline.take()


def test_entries_of_two_sources_are_in_order_of_time() -> None:
    later, sooner = entry(Event.LEASE_GRANTED, 5), entry(Event.AGENT_READY, 1, LOG)
    assert taken(later, sooner) == [sooner, later]


@pytest.mark.parametrize("is_logged_first", [True, False])
def test_both_lines_of_a_decision_are_one_entry(is_logged_first: bool) -> None:
    audited = entry(Event.LEASE_DENIED, 1, container="c", uid=5, errors=["spec-not-json"])
    logged = entry(Event.LEASE_DENIED, 1.2, LOG, container="c", error="why [spec-not-json]")
    (found,) = taken(*((logged, audited) if is_logged_first else (audited, logged)))
    assert found.source == AUDIT
    assert found.time == audited.time
    assert found.fields == {**audited.fields, "error": "why [spec-not-json]"}


def test_decisions_about_others_or_at_other_times_stay_apart() -> None:
    audited = entry(Event.LEASE_DENIED, 1, container="c")
    for other in (
        entry(Event.LEASE_DENIED, 1, LOG, container="d"),
        entry(Event.LEASE_DENIED, 60, LOG, container="c"),
        entry(Event.LEASE_GRANTED, 1, LOG, container="c"),
        entry(Event.LEASE_DENIED, 1, container="c"),
        entry(Event.LEASE_ADOPTED, 1, LOG, container="c"),
    ):
        assert len(taken(audited, other)) == 2


def test_three_denials_of_a_container_are_three() -> None:
    lines = [
        entry(Event.LEASE_DENIED, second, source, container="c")
        for second in (0, 1, 2)
        for source in (LOG, AUDIT)
    ]
    assert [each.source for each in taken(*lines)] == [AUDIT] * 3


def test_the_second_line_of_a_decision_may_come_later() -> None:
    timeline = Timeline()
    timeline.add([entry(Event.LEASE_GRANTED, 10, container="c")])
    assert timeline.take(START + timedelta(seconds=10)) == []
    timeline.add([entry(Event.LEASE_GRANTED, 10.1, LOG, container="c")])
    assert len(timeline.take(START + timedelta(seconds=11))) == 1
    assert timeline.take() == []
    timeline.add([entry(Event.LEASE_GRANTED, 10.2, LOG, container="c")])
    assert len(timeline.take()) == 1


def test_the_end_of_a_lease_has_the_accounts_of_its_grant() -> None:
    grant = entry(Event.LEASE_GRANTED, lease=LEASE, domain="contoso.com", accounts=["web"])
    end = entry(Event.LEASE_RELEASED, 9, lease=LEASE)
    assert taken(grant, end)[1].accounts == ("web@contoso.com",)


def test_so_many_grants_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline_module, "_REMEMBERED", 2)
    grants = [
        entry(Event.LEASE_GRANTED, n, lease=f"{n}", domain="d.test", accounts=["a"])
        for n in range(3)
    ]
    ends = [entry(Event.LEASE_RELEASED, 10 + n, lease=f"{n}") for n in range(3)]
    assert [bool(each.accounts) for each in taken(*grants, *ends)[3:]] == [False, True, True]


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        (Filter(), True),
        (Filter(since=START), True),
        (Filter(since=START + timedelta(seconds=1)), False),
        (Filter(lease="abab"), True),
        (Filter(lease="0123"), True),
        (Filter(lease="b"), False),
        (Filter(account="WEB"), True),
        (Filter(account="web$"), True),
        (Filter(account="web@CONTOSO.com"), True),
        (Filter(account="web@fabrikam.com"), False),
        (Filter(account="we"), False),
        (Filter(account="web", lease="f"), False),
    ],
)
def test_filters(wanted: Filter, matches: bool) -> None:
    fields = {"lease": LEASE, "container": "0123456789", "domain": "contoso.com"}
    found = entry(Event.LEASE_GRANTED, **fields, accounts=["Web"])
    assert wanted.matches(found) is matches
