"""The alert rules, by Prometheus' own tool: which series raise which alert, and which none."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from support.machine.debian_bootstrap import download
from support.machine.package_machine import BUILD, CHECKOUT

RULES = CHECKOUT / "packaging/prometheus/credspec.rules.yml"
CASES = Path(__file__).with_name("alerts_test.yml")


@pytest.fixture(scope="module")
def promtool() -> str:
    """Prometheus' tool: the one that is installed, or that of Debian's package."""
    if installed := shutil.which("promtool"):
        return installed
    folder = BUILD / "promtool"
    tool = folder / "usr/bin/promtool"
    if not tool.exists():
        package = download("prometheus", folder)
        data = subprocess.run(
            ["dpkg-deb", "--fsys-tarfile", package], check=True, capture_output=True
        ).stdout
        extract = ["tar", "--extract", f"--directory={folder}", "./usr/bin/promtool"]
        subprocess.run(extract, input=data, check=True)
        package.unlink()
    return str(tool)


def run(promtool: str, what: str, path: Path) -> subprocess.CompletedProcess[str]:
    command = [promtool, what, "rules", str(path)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_prometheus_takes_the_rules(promtool: str) -> None:
    done = run(promtool, "check", RULES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_raised_by_its_fault_and_none_without(promtool: str) -> None:
    done = run(promtool, "test", CASES)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("< 0.2", "< 0.002"),
        ("time() <= 0", "time() <= 20000"),
        ("credspec_domain_up == 0", "credspec_domain_up == 2"),
        ("[15m]) > 5", "[15m]) > 1"),
        ("hold_seconds > 5", "hold_seconds > 50"),
        ('up{job="credspec"} == 0', 'up{job="credspec"} == 1'),
        ("credspec_agent_up == 0", "credspec_agent_up == 2"),
        ("> 300\n", "> 900\n"),
        ("[30m]) > 3", "[30m]) > 300"),
        ("[15m]) > 0", "[15m]) > 2"),
        ('{result="denied"}', '{result!="granted"}'),
    ],
)
def test_the_cases_notice_another_threshold(
    promtool: str, tmp_path: Path, old: str, new: str
) -> None:
    rules = RULES.read_text()
    assert rules.count(old) == 1
    changed = tmp_path / RULES.name
    changed.write_text(rules.replace(old, new))
    cases = tmp_path / CASES.name
    cases.write_text(CASES.read_text().replace("../../packaging/prometheus/", ""))
    assert run(promtool, "test", cases).returncode != 0
