"""What a shell is offered: click's own protocol, as its scripts for bash, zsh and fish use it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CREDSPEC = str(Path(sys.executable).with_name("credspec"))


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "specs").mkdir()
    for name in ("www.json", "web.json", "db.json"):
        (tmp_path / "specs" / name).write_text("{}")
    (tmp_path / "wild.json").write_text("{}")
    (tmp_path / "config.toml").write_text(f'spec_directory = "{tmp_path}/specs"\n')
    return tmp_path


def offered(here: Path, line: str) -> list[str]:
    words = line.split(" ")
    shown = subprocess.run(
        [CREDSPEC],
        cwd=here,
        env={
            "PATH": "/usr/bin:/bin",
            "CREDSPEC_CONFIG": str(here / "config.toml"),
            "_CREDSPEC_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.stderr == ""
    return shown.stdout.split("\n")[:-1]


@pytest.mark.parametrize("command", ["show", "check", "convert", "run --spec"])
def test_specs_of_the_directory_and_files(here: Path, command: str) -> None:
    assert offered(here, f"credspec {command} w") == [
        "file,w",
        "plain,web.json",
        "plain,wild.json",
        "plain,www.json",
    ]
    assert offered(here, f"credspec {command} ./w") == ["file,./w"]


def test_without_a_spec_directory_files_remain(here: Path) -> None:
    (here / "config.toml").write_text('spec_directory = "/nowhere"\n')
    assert offered(here, "credspec show w") == ["file,w"]
    (here / "config.toml").write_text("not TOML")
    assert offered(here, "credspec show w") == ["file,w"]


def test_plugins_windows_words_and_parts_of_setup(here: Path) -> None:
    assert "plain,rancher=" in offered(here, "credspec new WebApp01 --host-account r")
    assert offered(here, "credspec check --explain 13") == [
        "plain,1311",
        "plain,1326",
        "plain,1355",
        "plain,1398",
    ]
    assert "plain,docker" in offered(here, "credspec setup d")


def test_labs(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from credspec.cli import completion
    from credspec.lab import domain

    for name in ("one", "other"):
        (here / name).mkdir()
        (here / name / "lab.json").write_text(
            '{"realm": "A.TEST", "netbios": "A", "subnet": "10.213.0.0/30"}'
        )
    monkeypatch.setattr(domain, "STATE_ROOT", here)
    items = completion.complete_lab(None, None, "o")  # type: ignore[arg-type]
    assert [item.value for item in items] == ["one", "other"]
