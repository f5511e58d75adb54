"""What `make` runs before the demo and the tests."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOGGED = ROOT / "packaging/logged.py"


def make(*arguments: str) -> str:
    found = subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stdout


def logged(log: Path, script: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(LOGGED), str(log), "A long step", "sh", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_what_a_step_prints_is_in_the_log_only(tmp_path: Path) -> None:
    log = tmp_path / "new/step.log"
    shown = logged(log, "echo noise; echo noise of errors >&2")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert re.fullmatch(r"A long step \.\.\.\n  done in \d+ s\n", shown.stdout)
    assert log.read_text().splitlines()[1:] == ["noise", "noise of errors"]


@pytest.mark.parametrize("status", [1, 2, 100, 255])
def test_a_step_that_fails_shows_its_errors_and_where_the_rest_is(
    tmp_path: Path, status: int
) -> None:
    log = tmp_path / "step.log"
    log.write_text("E: of an earlier step\n")
    many = "for i in $(seq 50); do echo line $i; done"
    shown = logged(log, f"echo 'E: no space left'; {many}; exit {status}")
    assert shown.returncode == status
    assert "E: no space left" in shown.stderr
    assert "| line 50\n" in shown.stderr
    assert "| line 30\n" not in shown.stderr
    assert "earlier" not in shown.stderr
    assert str(log) in shown.stderr
    assert "line 1\n" in log.read_text()


def test_a_step_that_is_killed(tmp_path: Path) -> None:
    assert logged(tmp_path / "log", "kill -9 $$").returncode == 128 + 9


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    shown = logged(tmp_path / "log", "exec /no/such/program")
    assert shown.returncode == 127
    assert "/no/such/program" in shown.stderr


def test_make_alone_installs_nothing_and_lists_every_target() -> None:
    phony = re.findall(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    listed = re.findall(r"^  make (\S+) +\S", make(), re.MULTILINE)
    assert listed == phony[0].split()
    assert make("--dry-run") == make("--dry-run", "help")


def test_the_demo_needs_nothing_of_the_tests() -> None:
    demo, test = (
        make("--dry-run", "--always-make", "demo"),
        make("--dry-run", "--always-make", "test"),
    )
    for only_tests in ("npm", "applications", "dev.lock", "install-debian-packages test"):
        assert only_tests in test
        assert only_tests not in demo


def test_lists_of_packages_of_the_demo_and_the_tests() -> None:
    script = (ROOT / "packaging/install-debian-packages").read_text()
    demo, _, test = script.partition("\n    ;;&\n")
    for name in ("default-jdk", "apache2", "freetds", "podman", "mmdebstrap", "docker-compose"):
        assert name not in demo
        assert name in test


def pinned(name: str) -> set[tuple[str, str]]:
    text = (ROOT / "requirements" / name).read_text()
    return set(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)", text, re.MULTILINE))


@pytest.mark.parametrize("name", ["host.lock", "build.lock"])
def test_the_lock_files_agree(name: str) -> None:
    assert pinned(name)
    assert pinned(name) <= pinned("dev.lock")
