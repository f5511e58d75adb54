"""The command line of `credspec setup`; the integration tests do it on a real host."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from credspec.cli.setup import setup
from credspec.cli.setup_report import planned, report
from credspec.config.host import Config
from credspec.errors import CredspecError, UsageError
from credspec.setup.agent import AgentSetup, count_leases, lease_warnings
from credspec.setup.containerd import ContainerdSetup
from credspec.setup.docker import DockerSetup
from credspec.setup.systemd import AGENT_UNIT, SystemdSetup


def run(*arguments: str) -> tuple[int, str, str]:
    shown = CliRunner().invoke(setup, arguments, prog_name="credspec setup")
    return shown.exit_code, shown.stdout, shown.stderr


@pytest.mark.parametrize("typed", [("agent", "dcoker"), ("dcoker",), ("agent", "docker", "podmna")])
def test_a_mistyped_part_is_refused_before_anything_is_done(typed: tuple[str, ...]) -> None:
    status, shown, said = run(*typed)
    assert (status, shown) == (2, "")
    assert "Did you mean" in said


def test_several_parts_have_a_help_of_their_own() -> None:
    status, shown, _ = run("agent", "docker", "--help")
    assert status == 0
    assert "credspec setup agent docker --undo" in shown


def test_a_dry_run_of_several_parts_says_what_would_be_done() -> None:
    status, shown, _ = run("docker", "agent", "--dry-run")
    assert status == 0
    lines = shown.splitlines()
    assert all(line.startswith("dry run: would ") for line in lines)
    text = "\n".join(lines)
    for part in ("credspec-docker-gateway.service", "credspec-agent.service", "daemon.json"):
        assert part in text
    document = json.loads(run("docker", "agent", "--dry-run", "--output", "json")[1])
    assert len(document["changes"]) == len(lines)
    assert document["dry_run"] is True


def test_single_options_are_for_single_parts() -> None:
    status, _, said = run("agent", "docker", "--set-as-default")
    assert status == 2
    assert "--set-as-default" in said


@pytest.mark.parametrize(
    ("done", "to_do"),
    [
        ("enabled and started x", "enable and start x"),
        ("stopped and removed x", "stop and remove x"),
        ("wrote x", "write x"),
        ("made x", "make x"),
        ("no docker client here", "say: no docker client here"),
    ],
)
def test_what_is_not_done_is_not_told_as_done(done: str, to_do: str) -> None:
    assert planned(done) == to_do


def test_leases_are_warned_of_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Config(run_directory=tmp_path)
    assert lease_warnings(config) == ()
    config.journal_directory.mkdir()
    for name in ("a.json", "b.json", ".unfinished"):
        (config.journal_directory / name).touch()
    assert count_leases(config) == 2
    report(["removed x"], dry_run=False, output="text", warnings=lease_warnings(config))
    said = capsys.readouterr()
    assert said.out == "removed x\n"
    assert "2 container(s) or program(s) have tickets" in said.err
    assert said.err.endswith("[setup-leases-exist]\n")


def test_without_systemd_no_directory_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("credspec.setup.systemd._RUNNING_SYSTEMD", tmp_path / "absent")
    plan = AgentSetup(
        systemd=SystemdSetup(program=Path(sys.executable), unit_directory=tmp_path / "units"),
        config=Config(spec_directory=tmp_path / "specs"),
    )
    with pytest.raises(CredspecError, match="systemd-missing"):
        plan.apply()
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="setup-program"):
        SystemdSetup(program=tmp_path / "credspec", units=(AGENT_UNIT,)).check()


@pytest.mark.parametrize("umask", ["000", "077"])
def test_the_spec_directory_is_roots_whatever_the_umask(tmp_path: Path, umask: str) -> None:
    code = (
        "from pathlib import Path; from credspec.setup.agent import _make_directory"
        f"; print(_make_directory(Path({str(tmp_path / 'a/b')!r}), dry_run=False))"
    )
    shown = subprocess.run(
        ["sh", "-c", f'umask {umask}; exec "$0" -c "$1"', sys.executable, code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == f"['made {tmp_path}/a/b']\n"
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o755


def test_an_undo_of_several_says_what_is_next_for_those_that_had_something_to_undo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = {"run_directory": tmp_path / "run"}
    docker = DockerSetup(
        gateway_socket=tmp_path / "docker.sock",
        daemon_config=tmp_path / "daemon.json",
        launcher_directory=tmp_path / "docker",
        context=None,
        **common,
    )
    containerd = ContainerdSetup(
        config=tmp_path / "config.toml", launcher_directory=tmp_path / "containerd", **common
    )
    for plan in (docker, containerd):
        monkeypatch.setattr(type(plan), "from_config", lambda _, plan=plan: plan)
    docker.apply()
    status, shown, said = run("docker", "containerd", "--undo")
    assert status == 0
    assert f"removed the runtime credspec from {docker.daemon_config}" in shown
    assert docker.next_step_of_undo() in said
    assert containerd.next_step_of_undo() not in said
