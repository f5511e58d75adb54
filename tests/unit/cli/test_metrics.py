"""``credspec metrics`` where there is no agent, and where the file cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from credspec.cli.metrics import metrics
from credspec.errors import AgentUnreachableError, CredspecError, UsageError

DOWN = "credspec_agent_up 0\n"


@pytest.fixture
def no_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "config.toml").write_text(f'run_directory = "{tmp_path}/run"\n')
    monkeypatch.setenv("CREDSPEC_CONFIG", str(tmp_path / "config.toml"))
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(metrics, arguments)


def test_no_numbers_stay_of_an_agent_that_is_gone(no_agent: Path) -> None:
    path = no_agent / "credspec.prom"
    path.write_text("credspec_leases 3\n")
    result = run("--textfile", str(path))
    assert isinstance(result.exception, AgentUnreachableError)
    assert path.read_text().endswith(DOWN)
    assert "credspec_leases" not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o644
    assert [each.name for each in no_agent.iterdir() if each.suffix != ".toml"] == [path.name]


def test_nothing_is_printed_of_it(no_agent: Path) -> None:
    result = run()
    assert isinstance(result.exception, AgentUnreachableError)
    assert result.stdout == ""


def test_a_file_that_node_exporter_would_not_read_is_refused(no_agent: Path) -> None:
    result = run("--textfile", str(no_agent / "credspec.txt"))
    assert isinstance(result.exception, UsageError)
    assert result.exception.code == "textfile-name"


def test_a_directory_that_is_not_there(no_agent: Path) -> None:
    result = run("--textfile", str(no_agent / "none/credspec.prom"))
    assert isinstance(result.exception, CredspecError)
    assert result.exception.code == "textfile-unwritable"
