"""What is documented and shown of metrics and events is what there is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from credspec.service.events import Event

ROOT = Path(__file__).parents[3]
METRICS = "".join(
    (ROOT / "src/credspec" / name).read_text()
    for name in ("agent/doors/http/metrics.py", "cli/metrics.py", "kubernetes/csi/metrics.py")
)


def assert_is_metric(name: str) -> None:
    bare = name.removeprefix("credspec_").removesuffix("_bucket")
    bare = bare.removesuffix("_total").removesuffix("_seconds")
    assert re.search(rf'"(credspec_)?{bare}(_seconds|_total)?"', METRICS), name


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    dashboard = json.loads((ROOT / "packaging/grafana/credspec.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = {name for text in expressions for name in re.findall(r"credspec_\w+", text)}
    assert len(asked) >= 10
    for name in asked:
        assert_is_metric(name)


def test_every_alert_asks_for_metrics_that_exist_and_is_documented_and_tested() -> None:
    rules = yaml.safe_load((ROOT / "packaging/prometheus/credspec.rules.yml").read_text())
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    documented = (ROOT / "docs/monitoring.md").read_text()
    tested = (ROOT / "tests/packages/alerts_test.yml").read_text()
    assert len(alerts) >= 7
    for alert in alerts:
        assert {*alert} <= {"alert", "expr", "for", "labels", "annotations"}
        assert {*alert["annotations"]} == {"summary", "description"}
        assert f"| `{alert['alert']}` | {alert['labels']['severity']} |" in documented
        assert alert["alert"] in tested
        for name in re.findall(r"credspec_\w+", alert["expr"]):
            assert_is_metric(name)


def test_every_panel_has_a_place_of_its_own() -> None:
    dashboard = json.loads((ROOT / "packaging/grafana/credspec.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert x < 24
                assert (x, y) not in taken
                taken.add((x, y))


def test_every_event_is_documented_as_it_is() -> None:
    text = (ROOT / "docs/events.md").read_text()
    rows = re.findall(r"^\| (\d+) \| `([a-z-]+)` \| (\w+) \| (.+) \|$", text, re.MULTILINE)
    assert [(int(n), name, level, meaning) for n, name, level, meaning in rows] == [
        (event.number, event.label, event.level, event.meaning)
        for event in sorted(Event, key=lambda e: e.number)
    ]


@pytest.mark.parametrize(
    ("document", "least"), [("docs/reliability.md", 30), ("docs/security.md", 15)]
)
def test_every_test_that_a_table_names_exists(document: str, least: int) -> None:
    named = re.findall(r"`(tests/[\w/.]+\.py)(?:::(\w+))?`", (ROOT / document).read_text())
    assert len(named) > least
    for path, name in named:
        content = (ROOT / path).read_text()
        assert not name or f"def {name}(" in content, (path, name)
