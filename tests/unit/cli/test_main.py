from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from credspec.cli.main import _COMMANDS
from credspec.errors import CredspecError, ExitStatus, InvalidSpecError, Problem

BIN = Path(sys.executable).parent


def credspec(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "credspec"), *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "command",
    [[name] for name in sorted(_COMMANDS)]
    + [["lab", name] for name in ("up", "down", "status", "env", "exec")]
    + [["setup", "docker"]],
)
def test_help_shows_an_example(command: list[str]) -> None:
    shown = credspec(*command, "--help")
    assert shown.returncode == 0
    assert "Example" in shown.stdout


def test_help_of_the_whole_imports_no_command() -> None:
    code = (
        "import sys; from credspec.cli.main import credspec\n"
        "try: credspec(['--help'])\nexcept SystemExit: pass\n"
        "heavy = ('credspec.', 'krb5', 'ctypes', 'aiohttp')\n"
        "print(*(m for m in sys.modules if m.startswith(heavy)), file=sys.stderr)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(shown.stderr.split()) == {
        "credspec.errors",
        "credspec.cli",
        "credspec.cli.main",
        "credspec.cli.help_text",
    }


def test_a_wrong_command_line() -> None:
    assert credspec("nonsense").returncode == ExitStatus.USAGE
    assert credspec("new").returncode == ExitStatus.USAGE


def test_no_agent(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(f'run_directory = "{tmp_path}"\n')
    shown = subprocess.run(
        ["env", f"CREDSPEC_CONFIG={tmp_path}/config.toml", str(BIN / "credspec"), "status"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == ExitStatus.AGENT_UNREACHABLE
    assert shown.stderr.startswith("credspec: ")
    assert shown.stderr.rstrip().endswith("[agent-unreachable]")


def test_errors_survive_the_wire_and_hostile_text() -> None:
    error = InvalidSpecError(
        Problem(code="a", found="bad\n\x1b[31mred", where="/x", expected="good", remedy="mend it"),
        Problem(code="b", found="worse"),
    )
    again = CredspecError.from_json(error.to_json())
    assert type(again) is InvalidSpecError
    assert again.problems == error.problems
    assert str(again).count("\n") == 1
    assert "\x1b" not in str(again)
    assert str(again).endswith("worse [b]")


@pytest.mark.parametrize("document", [{}, {"problems": "x"}, {"title": 7, "problems": [1]}])
def test_answers_that_are_no_problem_documents(document: dict) -> None:
    assert CredspecError.from_json(document).problems
