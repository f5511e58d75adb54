"""Relative paths on the command line of ``credspec setup``: engines run in other directories."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
COMMANDS = {
    "docker": ["--daemon-config", "daemon.json", "--no-context"],
    "containerd": ["--config", "config.toml"],
    "podman": ["--config-directory", "conf", "--hooks-directory", "hooks"],
}


@pytest.mark.parametrize("engine", COMMANDS)
def test_no_relative_path_is_written(engine: str, tmp_path: Path) -> None:
    made = subprocess.run(
        [BIN / "credspec", "setup", engine, "--launcher-directory", "lib", *COMMANDS[engine]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    written = "".join(path.read_text() for path in files if path.parent.name != "lib")
    named = re.findall(r'"([^"]*lib/credspec-[a-z-]+)"', written)
    assert named
    assert all(name.startswith(f"{tmp_path}/lib/") for name in named), named
