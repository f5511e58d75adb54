"""Every query of dashboards and alerts asks for metrics and labels that the code really writes."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from credspec.agent.doors.http.metrics import Snapshot, _Times, metrics_text
from credspec.agent.identities.open_domain import DomainStatus
from credspec.kubernetes.csi.metrics import NodeMetrics
from credspec.kubernetes.csi.volume_records import VolumeRecord, VolumeRecords
from credspec.kubernetes.csi.volume_request import FileOptions, Pod
from credspec.kubernetes.webhook.metrics import WebhookMetrics
from credspec.metrics_text import Histogram

ROOT = Path(__file__).parents[2]
GRAFANA = sorted((ROOT / "packaging/grafana").glob("*.json"))
SCRAPED = {"instance", "job", "node"}
"""Labels that a scrape gives each series, `node` by the chart's PodMonitor."""

_SELECTOR = re.compile(r"(credspec_\w+)(?:\{([^}]*)\})?")
_BY = re.compile(r"by \(([^)]*)\)")


def agents() -> bytes:
    now = datetime.now(UTC)
    identity = _Times("webapp01", "contoso.com", now, now + timedelta(hours=10), now, now)
    domain = DomainStatus(
        domain="contoso.com",
        controller="dc1.contoso.com",
        latency=0.01,
        outage_since=None,
        last_error=None,
    )
    seconds = Histogram("source", (0.01, 1.0))
    seconds.observe("domain", 0.1)
    snapshot = Snapshot(
        leases=1,
        acquisitions=2,
        failures=3,
        granted=4,
        denied=5,
        identities=(identity,),
        service_tickets=(("granted", 2), ("denied", 1), ("refused", 3), ("failed", 0)),
        service_ticket_seconds=tuple(seconds.samples()),
        services_denied=(("lease1", 1),),
        domains=(domain,),
        longest_hold=(0.1, 0.1),
    )
    return metrics_text(snapshot)


async def nodes(directory: Path) -> bytes:
    records = VolumeRecords(directory)
    records.open()
    pod = Pod(namespace="shop", name="web", uid="1", service_account="web")
    options = FileOptions(uid=0, gid=0, mode=0o600)
    records.write(
        VolumeRecord(
            volume_id="csi-1",
            target=Path("/x"),
            pod=pod,
            spec_name="webapp01",
            options=options,
            document="x",
        )
    )
    metrics = NodeMetrics(directory / "no.sock", records, lambda: 1)
    metrics.answered("NodePublishVolume", "PERMISSION_DENIED")
    return await metrics.text()


def webhooks() -> bytes:
    metrics = WebhookMetrics()
    metrics.answered("mutate", "", 0.01)
    return metrics.text()


@pytest.fixture
async def written(tmp_path: Path) -> dict[str, set[str]]:
    """Return the labels of each series that agent, driver and webhook write."""
    found: dict[str, set[str]] = defaultdict(set)
    for text in (agents(), await nodes(tmp_path / "csi"), webhooks()):
        for family in text_string_to_metric_families(text.decode()):
            for sample in family.samples:
                found[sample.name] |= sample.labels.keys()
    return found


def assert_can_be_answered(expression: str, written: dict[str, set[str]]) -> None:
    names = set()
    for name, selector in _SELECTOR.findall(expression):
        names.add(name)
        if name.startswith("credspec_"):
            assert name in written, expression
            labels = set(re.findall(r"(\w+)\s*[=!]~?=?", selector))
            assert labels <= written[name] | SCRAPED, expression
    for group in _BY.findall(expression):
        known = set().union(*(written.get(name, set()) for name in names)) | SCRAPED
        assert {label.strip() for label in group.split(",")} <= known, expression


def panels(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())["panels"]
    return found


@pytest.mark.parametrize("path", GRAFANA, ids=lambda path: path.name)
def test_each_query_of_a_dashboard(path: Path, written: dict[str, set[str]]) -> None:
    expressions = [target["expr"] for panel in panels(path) for target in panel["targets"]]
    assert len(expressions) >= 10
    for expression in expressions:
        assert_can_be_answered(expression, written)


@pytest.mark.parametrize("path", GRAFANA, ids=lambda path: path.name)
def test_variables_and_legends_of_a_dashboard(path: Path, written: dict[str, set[str]]) -> None:
    dashboard = json.loads(path.read_text())
    variables = {each["name"]: each for each in dashboard["templating"]["list"]}
    for each in variables.values():
        if each["type"] == "query":
            name, label = re.fullmatch(
                r"label_values\((\w+), (\w+)\)", each["query"]["query"]
            ).groups()  # type: ignore[union-attr]
            assert label in written[name] | SCRAPED
    for panel in panels(path):
        for target in panel["targets"]:
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= variables.keys()
            for label in re.findall(r"{{(\w+)}}", target.get("legendFormat", "")):
                assert label in SCRAPED | set().union(*written.values()), target


@pytest.mark.parametrize("path", GRAFANA, ids=lambda path: path.name)
def test_every_panel_has_a_place_and_a_number_of_its_own(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels(path):
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert x < 24
                assert (x, y) not in taken
                taken.add((x, y))
    numbers = [panel["id"] for panel in panels(path)]
    assert len(set(numbers)) == len(numbers)


def test_each_alert_of_a_cluster(written: dict[str, set[str]]) -> None:
    """Those of single hosts are looked at in `tests/unit/agent/test_observability.py`."""
    rules = yaml.safe_load((ROOT / "packaging/prometheus/credspec.rules.yml").read_text())
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    expressions = [rule["expr"] for rule in alerts if "credspec_csi" in rule["expr"]]
    assert expressions
    for expression in expressions:
        assert_can_be_answered(expression, written)


@pytest.mark.parametrize(
    "expression",
    [
        "credspec_lease",
        'credspec_leases{account="x"}',
        "sum by (pod) (credspec_csi_volumes)",
        'credspec_csi_volumes{namespace=~"x"}',
    ],
)
def test_a_query_that_would_find_nothing_is_noticed(
    expression: str, written: dict[str, set[str]]
) -> None:
    with pytest.raises(AssertionError):
        assert_can_be_answered(expression, written)
