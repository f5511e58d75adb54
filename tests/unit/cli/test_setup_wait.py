"""How long starts wait is written into what engines run: by option, configuration or default."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from credspec.cli.setup import setup


def launcher_of(tmp_path: Path, engine: str, *options: str, config: str = "") -> str:
    path = tmp_path / "config.toml"
    path.write_text(config)
    places = {
        "docker": ["--daemon-config", str(tmp_path / "daemon.json"), "--no-context"],
        "containerd": ["--config", str(tmp_path / "containerd.toml")],
        "podman": [
            *("--config-directory", str(tmp_path / "conf")),
            *("--hooks-directory", str(tmp_path / "hooks")),
        ],
    }[engine]
    result = CliRunner().invoke(
        setup,
        [engine, *places, "--launcher-directory", str(tmp_path / "bin"), *options],
        env={"CREDSPEC_CONFIG": str(path)},
    )
    assert result.exit_code == 0, result.output
    texts = [made.read_text() for made in sorted((tmp_path / "bin").iterdir())]
    assert texts
    return "".join(texts)


@pytest.mark.parametrize(
    ("engine", "default"), [("docker", "30.0"), ("containerd", "10.0"), ("podman", "30.0")]
)
def test_option_configuration_and_default(tmp_path: Path, engine: str, default: str) -> None:
    def waits(*options: str, config: str = "") -> set[str]:
        text = launcher_of(tmp_path, engine, *options, config=config)
        return {part.partition(")")[0] for part in text.split("wait_seconds=")[1:]}

    assert waits() == {default}
    assert waits(config="wait_seconds = 12") == {"12.0"}
    assert waits("--wait", "0", config="wait_seconds = 12") == {"0.0"}
    assert waits("--wait", "600") == {"600.0"}


def test_podman_gives_its_hooks_longer_than_they_wait(tmp_path: Path) -> None:
    launcher_of(tmp_path, "podman", "--wait", "300")
    hook = json.loads((tmp_path / "hooks" / "credspec-precreate.json").read_text())
    assert hook["hook"]["timeout"] >= 300 + 60


@pytest.mark.parametrize("value", ["-1", "3601", "x"])
def test_waits_that_are_none(value: str) -> None:
    result = CliRunner().invoke(setup, ["docker", "--dry-run", "--wait", value])
    assert result.exit_code == 2
