"""What the page shows of an agent that answers, is not ready, restarts; simulated agent."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from credspec.errors import AgentUnreachableError, CredspecError
from credspec.event_log.reader import EventReader
from credspec.event_log.sources import GrowingFile
from credspec.event_log.timeline import Filter
from credspec.status_page import watcher as watcher_module
from credspec.status_page.feed import Feed
from credspec.status_page.watcher import Watcher

START = datetime(2026, 1, 31, 10, tzinfo=UTC)


class SimulatedClient:
    def __init__(self) -> None:
        domain = {"domain": "d.test", "latency_seconds": 0.0123}
        self.answers: dict[str, Any] = {
            "/v1/identities": {"identities": [{"account": "web", "domain": "d.test"}]},
            "/v1/leases": {"leases": [{"lease_id": str(n)} for n in range(3)]},
            "/v1/domains": {"domains": [domain]},
            "/healthz": {"status": "ok"},
            "/readyz": {"status": "ready"},
        }

    def get(self, path: str) -> Any:
        answer = self.answers[path]
        if isinstance(answer, CredspecError):
            raise answer
        return answer


class Stage:
    def __init__(self, directory: Path) -> None:
        self.client, self.feed, self.now = SimulatedClient(), Feed(), START
        self.audit = directory / "audit.jsonl"
        reader = EventReader(GrowingFile(self.audit), [], Filter())
        self.watcher = Watcher(
            self.client,  # type: ignore[arg-type]
            reader,
            self.feed,
            now=lambda: self.now,
        )

    def messages(self) -> dict[str, Any]:
        self.watcher.look()
        return {name: json.loads(text) for name, text in self.feed.after(0, 0)[1]}

    def state(self) -> Any:
        return self.messages()["state"]

    def append(self, **fields: object) -> None:
        entry = {"event": "lease-granted", "event_id": 120, "container": "c", **fields}
        with self.audit.open("a") as file:
            file.write(json.dumps({"time": self.now.isoformat(), **entry}) + "\n")


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_an_agent_that_answers(stage: Stage) -> None:
    state = stage.state()
    assert state["error"] is None
    assert state["hindrances"] == []
    assert state["counts"] == {"identities": 1, "leases": 3, "domains": 1}
    assert state["latencies"] == {"d.test": [[START.timestamp() // 60, 12.3]]}


def test_an_agent_that_restarts_keeps_what_was_known(stage: Stage) -> None:
    stage.state()
    healthy = stage.client.answers["/v1/identities"]
    down = AgentUnreachableError.of("agent-unreachable", "the agent does not answer")
    stage.client.answers["/v1/identities"] = down
    stage.now += timedelta(seconds=2)
    since = stage.now
    state = stage.state()
    assert "[agent-unreachable]" in state["error"]
    stage.now += timedelta(minutes=2)
    state = stage.state()
    assert datetime.fromisoformat(state["since"]) == since
    assert state["counts"]["leases"] == 3
    assert len(state["latencies"]["d.test"]) == 1  # an old number is no new one
    stage.client.answers["/v1/identities"] = healthy
    assert (stage.state()["error"], stage.state()["since"]) == (None, None)


def test_why_an_agent_is_not_ready_and_not_reloaded(stage: Stage) -> None:
    not_ready = CredspecError.of("not-ready", "no domain answers")
    not_ready.response_status = 503
    stage.client.answers |= {"/readyz": not_ready, "/healthz": {"reload_error": "line 3"}}
    state = stage.state()
    assert state["error"] is None
    assert state["hindrances"] == [
        "Configuration not reloaded, the old one is in force: line 3",
        "Not ready: no domain answers",
    ]


def test_latencies_of_an_hour_one_a_minute(stage: Stage) -> None:
    for _ in range(200):
        stage.now += timedelta(seconds=30)
        points = stage.state()["latencies"]["d.test"]
    assert len(points) == 60
    minutes = [minute for minute, _ in points]
    assert minutes == list(range(minutes[0], minutes[0] + 60))


def test_so_many_rows_are_sent(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher_module, "MAX_ROWS", 2)
    state = stage.state()
    assert (len(state["leases"]), state["counts"]["leases"]) == (2, 3)


def test_identities_that_the_doctor_may_be_asked_about(stage: Stage) -> None:
    assert stage.watcher.identity("web@d.test") is None
    stage.state()
    assert stage.watcher.identity("web@d.test") == ("web", "d.test")
    assert stage.watcher.identity("--explain=1@d.test") is None


def test_events_come_when_they_are_settled(stage: Stage) -> None:
    stage.append(uid=0, pid=1)
    (first,) = stage.messages()["events"]
    assert first["text"] == "container c  by user 0 (process 1)"
    stage.append(container="d")
    assert len(stage.messages()["events"]) == 1
    stage.now += timedelta(seconds=2)
    assert len(stage.messages()["events"]) == 2


def test_an_audit_log_that_may_not_be_read_is_said(stage: Stage) -> None:
    stage.audit.mkdir()
    assert "[log-unreadable]" in stage.messages()["events_error"]


def test_it_looks_at_once_and_then_in_intervals(stage: Stage) -> None:
    class Minutes(threading.Event):
        """An event that is waited for without time, and set by the fourth time."""

        def __init__(self) -> None:
            super().__init__()
            self.waits: list[float | None] = []

        def wait(self, timeout: float | None = None) -> bool:
            self.waits.append(timeout)
            return len(self.waits) > 3

    end = Minutes()
    stage.watcher.run(5.0, end)
    assert end.waits == [0, 5.0, 5.0, 5.0]
    assert "state" in dict(stage.feed.after(0, 0)[1])
