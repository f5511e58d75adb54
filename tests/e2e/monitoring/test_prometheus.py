"""A real Prometheus reads the agent by node_exporter, as docs/monitoring.md says."""

from __future__ import annotations

import json
import math
import os
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

from credspec.contract.kdc_sockets import serve_kdc
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

    def alerts(self) -> set[str]:
        return {each["labels"]["alertname"] for each in self.get("alerts")["alerts"]}

    def wait_for(self, condition: Callable[[], Any], what: str = "") -> Any:
        end = time.monotonic() + 120
        while True:
            try:
                if found := condition():
                    return found
            except OSError:
                pass  # it starts
            assert all(each.poll() is None for each in self.processes)
            assert time.monotonic() < end, what or condition
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


def dashboard_queries() -> list[tuple[str, str]]:
    """Return each query of the dashboard, after the title of its panel."""
    dashboard = json.loads((ROOT / "packaging/grafana/credspec.json").read_text())
    return [
        (panel["title"], re.sub(r"\$\w+", ".*", target["expr"]))
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    ]


class Broker:
    """A lease in mode broker, with programs that ask it for tickets."""

    def __init__(self, agent: AgentProcess, number: int) -> None:
        agent.mount(number)
        services = [f"{kind}/*.{agent.lab.dns_domain}" for kind in ("ldap", "host")]
        agent.put(number, tickets="broker", services=services, uid=0, gid=0)
        serve_kdc(f"{number:032x}", str(agent.run_directory / "agent.sock"), None)
        self._directory = agent.lease_directory(number)
        self._first = (self._directory / "krb5cc").read_bytes()

    def ask(self, service: str) -> bool:
        """Ask as a program does that has asked for nothing before; return whether it got one."""
        cache = self._directory / "copy"
        cache.write_bytes(self._first)
        variables = {"KRB5CCNAME": str(cache), "KRB5_CONFIG": str(self._directory / "krb5.conf")}
        shown = subprocess.run(
            ["kvno", service],
            env=os.environ | variables | {"LC_ALL": "C"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert shown.returncode == 0 or "KDC policy rejects request" in shown.stderr, shown.stderr
        return shown.returncode == 0


def numbers(result: list[Any]) -> list[float]:
    """Return the values that a query found, without those that Grafana draws nothing for."""
    found = (float(each["value"][1]) for each in result)
    return [value for value in found if math.isfinite(value)]


def test_the_dashboard_has_data_and_an_agent_that_is_gone_raises_the_alert(
    agent: AgentProcess, monitoring: Monitoring
) -> None:
    agent.mount(1)
    agent.put(1)
    with pytest.raises(CredspecError):
        agent.put(3, spec="file://missing.json")
    broker, controller = Broker(agent, 2), agent.lab.dc_host
    for service in ("ldap", "ldap", "cifs"):  # of the domain, of memory, and refused
        assert broker.ask(f"{service}/{controller}") == (service != "cifs")
    assert write(monitoring.textfile) == 0
    written = monitoring.textfile.read_bytes()
    subprocess.run(["promtool", "check", "metrics"], input=written, check=True)
    monitoring.start()
    of_broker = 'credspec_service_ticket_seconds_count{source="%s"}'
    for source in ("domain", "memory"):
        monitoring.wait_for(lambda source=source: monitoring.query(of_broker % source))
    # A rate needs a change that was seen: more of each, after the first were read.
    for service in ("host", "ldap", "cifs"):
        assert broker.ask(f"{service}/{controller}") == (service != "cifs")
    assert write(monitoring.textfile) == 0
    queries = dashboard_queries()
    assert len(queries) >= 16
    for title, query in queries:
        monitoring.wait_for(lambda query=query: numbers(monitoring.query(query)), title)
    assert monitoring.query("credspec_leases")[0]["value"][1] == "2"
    assert monitoring.query("credspec_agent_up")[0]["value"][1] == "1"
    (group,) = monitoring.wait_for(lambda: monitoring.get("rules")["groups"])
    assert {rule["name"] for rule in group["rules"]} >= {"CredspecAgentDown"}
    monitoring.wait_for(
        lambda: {r["health"] for r in monitoring.get("rules")["groups"][0]["rules"]} == {"ok"}
    )
    # The one service that the lease may not have, and nothing else.
    monitoring.wait_for(lambda: monitoring.alerts() == {"CredspecServiceDenied"})

    agent.end()
    with pytest.raises(AgentUnreachableError):
        agent.client.get("/healthz")
    assert write(monitoring.textfile) == 6
    monitoring.wait_for(lambda: "CredspecAgentDown" in monitoring.alerts())
    monitoring.wait_for(lambda: not monitoring.query("credspec_leases"))
