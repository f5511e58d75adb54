"""Commands of `credspec setup` are made of what engines declare, those of new engines too."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner

from credspec.cli.setup import _set_up, setup
from credspec.cli.setup_engine_command import engine_command, fields_of
from credspec.config.host import Config
from credspec.setup.engine import LAUNCHER_OPTION, EngineSetup, SetupOption
from credspec.setup.engines import ENGINES


@dataclass(frozen=True, slots=True, kw_only=True)
class CrioSetup(EngineSetup):
    """An engine that credspec does not know."""

    name: ClassVar = "crio"
    help: ClassVar = "Register the runtime with CRI-O."
    options: ClassVar = (
        LAUNCHER_OPTION,
        SetupOption("--handler", str, "Its name.", "handler", default="credspec"),
        SetupOption("--no-handler", bool, "None.", "handler", flag_value=None),
    )
    launcher_name: ClassVar = "credspec-runtime-crio"
    default_wait_seconds: ClassVar = 7.0

    handler: str | None = "credspec"

    def apply(self, *, dry_run: bool = False) -> list[str]:
        content = f"{self.handler} {self.wait_seconds}".encode()
        return self._write_files({self.launcher: (content, 0o755)}, dry_run=dry_run)

    def undo(self, *, dry_run: bool = False) -> list[str]:
        return self._remove_files([self.launcher], [self.launcher_directory], dry_run=dry_run)

    def next_step(self, config: Config) -> str:
        return f"systemctl restart crio, with specs in {config.spec_directory}"


def run(*arguments: str) -> dict[str, Any]:
    shown = CliRunner().invoke(
        engine_command(CrioSetup, partial(_set_up, CrioSetup)), [*arguments, "--output", "json"]
    )
    assert shown.exit_code == 0, shown.output
    found: dict[str, Any] = json.loads(shown.stdout)
    return found


def test_an_engine_that_is_one_class_has_a_whole_command(tmp_path: Path) -> None:
    directory = tmp_path / "libexec"
    launcher = directory / "credspec-runtime-crio"
    given = ["--launcher-directory", str(directory)]
    assert run(*given, "--dry-run")["changes"] == [f"wrote {launcher}"]
    assert not directory.exists()
    made = run(*given)
    assert made["changes"] == [f"wrote {launcher}"]
    assert made["next"].endswith("systemctl restart crio, with specs in /etc/credspec/specs")
    assert launcher.read_text() == "credspec 7.0"
    assert run(*given)["changes"] == []
    assert run(*given, "--no-handler", "--wait", "3")["changes"] == [f"wrote {launcher}"]
    assert launcher.read_text() == "None 3.0"
    undone = run(*given, "--undo")
    assert (undone["changes"], undone["next"]) == ([f"removed {launcher}"], "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("engine", ENGINES.values(), ids=lambda engine: str(engine.name))
def test_every_option_sets_a_field_of_its_engine(engine: type[EngineSetup]) -> None:
    names = {field.name for field in fields(engine)}
    assert {option.field for option in engine.options} <= names
    assert engine.name in setup.commands
    defaults = {
        option.flag.removeprefix("--").replace("-", "_"): option.default or None
        for option in engine.options
    }
    config = Config()
    assert engine.from_config(config, fields_of(engine, defaults)) == engine.from_config(config)
    for option in engine.options:
        value = Path("/x") if option.kind is Path else "x"
        given = defaults | {option.flag.removeprefix("--").replace("-", "_"): value}
        found = getattr(engine.from_config(config, fields_of(engine, given)), option.field)
        assert found == (option.flag_value if option.kind is bool else value)


@pytest.mark.parametrize("engine", ENGINES.values(), ids=lambda engine: str(engine.name))
@pytest.mark.parametrize("configured", [None, 5.0])
@pytest.mark.parametrize("given", [None, 3.0])
def test_how_long_a_start_waits(
    engine: type[EngineSetup], configured: float | None, given: float | None
) -> None:
    found = engine.from_config(Config(wait_seconds=configured), wait=given)
    assert found.wait_seconds == (given or configured or engine.default_wait_seconds)
    fresh = engine(**engine.configured(Config()))
    assert fresh.wait_seconds == engine.default_wait_seconds
