"""What `credspec run` says of a spec that the policy refuses; the refusal is simulated."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from credspec.agent.policy import Policy
from credspec.cli.run import run
from credspec.errors import CredspecError, NotPermittedError
from credspec.runtimes import process_lease


@pytest.mark.parametrize("spec", ["./other.json", "raw://{}"])
def test_a_simulated_refusal_of_a_file_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str
) -> None:
    def refuse(*_: object, **__: object) -> int:
        Policy(spec_sources=("file",)).check_spec_source("raw")
        return 0

    monkeypatch.setattr(process_lease, "run_process", refuse)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "config.toml").write_text(f'spec_directory = "{tmp_path}/specs"\n')
    monkeypatch.setenv("CREDSPEC_CONFIG", str(tmp_path / "config.toml"))
    shown = CliRunner().invoke(run, ["--spec", spec, "--", "true"])
    assert isinstance(shown.exception, NotPermittedError)
    assert isinstance(shown.exception, CredspecError)
    assert shown.exception.code == "policy-spec-source"
    said = str(shown.exception)
    assert ("raw://" in said) == spec.startswith("raw://")
    assert ("install -m 0644 ./other.json" in said) != spec.startswith("raw://")
