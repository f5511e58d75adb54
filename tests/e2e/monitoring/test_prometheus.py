"""A real Prometheus reads the agent by node_exporter, as docs/monitoring.md says."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from credspec.errors import AgentUnreachableError, CredspecError
from credspec.lab.domain import Lab
from support.agent.agent_process import BIN, AgentProcess
from support.domain.loopback_addresses import listen

ROOT = Path(__file__).parents[3]
RULES = ROOT / "packaging/prometheus/credspec.rules.yml"
PAGE = (ROOT / "docs/monitoring.md").read_text("utf-8")


@pytest.fixture
def agent(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentProcess]:
    running = AgentProcess(lab, tmp_path)
    monkeypatch.setenv("CREDSPEC_CONFIG", str(running.config))
    running.start()
    yield running
    running.close()


class Monitoring:
    """node_exporter and Prometheus with what the page gives them to read."""

    def __init__(self, directory: Path) -> None:
        self.textfile = directory / "textfiles/credspec.prom"
        self.textfile.parent.mkdir()
        self._directory = directory
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        self.address, sockets = listen("127.94.0", 9090, 9100)
        for each in sockets:
            each.close()
        (sample,) = re.findall(r"^    rule_files:\n(?:    .*\n)+", PAGE, re.MULTILINE)
        config = yaml.safe_load(re.sub("^    ", "", sample, flags=re.MULTILINE))
        assert config["rule_files"] == ["/usr/share/credspec/prometheus/credspec.rules.yml"]
        config["rule_files"] = [str(RULES)]
        config["scrape_configs"][0]["static_configs"] = [{"targets": [f"{self.address}:9100"]}]
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        path = self._directory / "prometheus.yml"
        path.write_text(yaml.safe_dump(config))
        self._run(
            "prometheus-node-exporter",
            "--collector.disable-defaults",
            "--collector.textfile",
            f"--collector.textfile.directory={self.textfile.parent}",
            f"--web.listen-address={self.address}:9100",
        )
        self._run(
            "prometheus",
            f"--config.file={path}",
            f"--storage.tsdb.path={self._directory}/tsdb",
            f"--web.listen-address={self.address}:9090",
        )

    def _run(self, *command: str) -> None:
        with (self._directory / f"{command[0]}.log").open("wb") as log:
            self.processes.append(subprocess.Popen(command, stdout=log, stderr=log))

    def get(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        url = f"http://{self.address}:9090/api/v1/{path}?{query}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=30) as answer:
            return json.load(answer)["data"]

    def query(self, text: str) -> list[Any]:
        return self.get("query", query=text)["result"]

    def wait_for(self, condition: Callable[[], Any]) -> Any:
        end = time.monotonic() + 120
        while True:
            try:
                if found := condition():
                    return found
            except OSError:
                pass  # it starts
            assert all(each.poll() is None for each in self.processes)
            assert time.monotonic() < end, condition
            time.sleep(0.2)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def monitoring(tmp_path: Path) -> Iterator[Monitoring]:
    running = Monitoring(tmp_path)
    yield running
    running.close()


def write(textfile: Path) -> int:
    """Run the service's command of the page, for another directory of node_exporter."""
    (line,) = re.findall(r"^    ExecStart=(.*)$", PAGE, re.MULTILINE)
    program, *arguments, path = shlex.split(line)
    assert path == "/var/lib/prometheus/node-exporter/credspec.prom"
    command = [str(BIN / program), *arguments, str(textfile)]
    return subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode


def dashboard_queries(known: set[str]) -> list[str]:
    """Return the dashboard's queries of the agent's metrics; a cluster has others."""
    dashboard = json.loads((ROOT / "packaging/grafana/credspec.json").read_text())
    queries = [
        re.sub(r"\$\w+", ".*", target["expr"])
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    ]
    return [text for text in queries if set(re.findall(r"credspec_\w+", text)) <= known]


def test_the_dashboard_has_data_and_an_agent_that_is_gone_raises_the_alert(
    agent: AgentProcess, monitoring: Monitoring
) -> None:
    agent.mount(1)
    agent.put(1)
    with pytest.raises(CredspecError):
        agent.put(2, spec="file://missing.json")
    assert write(monitoring.textfile) == 0
    written = monitoring.textfile.read_bytes()
    subprocess.run(["promtool", "check", "metrics"], input=written, check=True)
    monitoring.start()
    known = set(re.findall(r"^(credspec_\w+)", monitoring.textfile.read_text(), re.MULTILINE))
    queries = dashboard_queries(known)
    assert len(queries) >= 12
    for query in queries:
        monitoring.wait_for(lambda query=query: monitoring.query(query))
    assert monitoring.query("credspec_leases")[0]["value"][1] == "1"
    assert monitoring.query("credspec_agent_up")[0]["value"][1] == "1"
    (group,) = monitoring.wait_for(lambda: monitoring.get("rules")["groups"])
    assert {rule["name"] for rule in group["rules"]} >= {"CredspecAgentDown"}
    monitoring.wait_for(
        lambda: {r["health"] for r in monitoring.get("rules")["groups"][0]["rules"]} == {"ok"}
    )
    assert monitoring.get("alerts")["alerts"] == []

    agent.end()
    with pytest.raises(AgentUnreachableError):
        agent.client.get("/healthz")
    assert write(monitoring.textfile) == 6
    (alert,) = monitoring.wait_for(lambda: monitoring.get("alerts")["alerts"])
    assert alert["labels"]["alertname"] == "CredspecAgentDown"
    monitoring.wait_for(lambda: not monitoring.query("credspec_leases"))
