from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.contract.ticket_options import ANNOTATIONS
from credspec.setup.podman import PodmanSetup
from support.specs.spellings import spellings


@pytest.fixture
def setup(tmp_path: Path) -> PodmanSetup:
    return PodmanSetup(
        run_directory=Path("/run/credspec"),
        config_directory=tmp_path / "conf.d",
        hooks_directory=tmp_path / "hooks.d",
        launcher_directory=tmp_path / "libexec",
    )


def test_there_and_back(setup: PodmanSetup, tmp_path: Path) -> None:
    assert len(setup.apply()) == 5
    config = tomllib.loads((setup.config_directory / "50-credspec.conf").read_text())
    assert config == {"engine": {"runtimes": {"credspec": [str(setup.launcher)]}}}
    for stage in ("precreate", "poststop"):
        hook = json.loads((setup.hooks_directory / f"credspec-{stage}.json").read_text())
        assert hook["stages"] == [stage]
        assert hook["hook"]["path"] == str(setup.hook_launcher)
        assert hook["hook"]["args"][1:] == [stage]
    for launcher in (setup.launcher, setup.hook_launcher):
        assert launcher.stat().st_mode & 0o777 == 0o755
    assert setup.apply() == []
    assert len(setup.undo()) == 5
    assert list(tmp_path.iterdir()) == []
    assert setup.undo() == []


def test_what_others_put_there_stays(setup: PodmanSetup) -> None:
    setup.hooks_directory.mkdir()
    theirs = setup.hooks_directory / "other.json"
    theirs.write_text("{}")
    setup.apply()
    setup.undo()
    assert theirs.read_text() == "{}"


def test_without_hooks(setup: PodmanSetup) -> None:
    assert len(replace(setup, hooks=False).apply()) == 2
    assert not setup.hooks_directory.exists()
    assert len(setup.undo()) == 2


def test_a_dry_run_says_the_same_and_does_nothing(setup: PodmanSetup, tmp_path: Path) -> None:
    said = setup.apply(dry_run=True)
    assert list(tmp_path.iterdir()) == []
    assert setup.apply() == said


def when(stage: str) -> str:
    document = json.loads(PodmanSetup(run_directory=Path("/run/credspec"))._hook(stage))
    [(pattern, value)] = document["when"]["annotations"].items()
    assert re.search(value, "file://x")
    return pattern


@given(st.sampled_from(ANNOTATIONS).flatmap(spellings))
def test_the_hook_is_run_for_any_spelling(name: str) -> None:
    """By Python's regular expressions, of which these are written as Go's are."""
    assert re.search(when("precreate"), name)


def test_the_hook_is_not_run_for_others() -> None:
    assert re.search(when("precreate"), "credspec.dev/spec")
    for name in ("io.container.manager", "org.opencontainers.image.stopSignal", "credspecs/x"):
        assert not re.search(when("precreate"), name)
    assert re.search(when("poststop"), "credspec.dev/spec")
    assert not re.search(when("poststop"), "credspec.dev/specs")
