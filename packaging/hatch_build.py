"""Writes the commit into what is built, for ``credspec --version``."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FILE = "src/credspec/_commit.txt"
SHARED = ("packaging/config.toml", "packaging/grafana", "packaging/prometheus")
"""For those who install with pip: in the wheel they are below credspec/share."""


class CommitHook(BuildHookInterface):
    """Adds ``credspec/_commit.txt``; an sdist has it already."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the file, unless this is an editable installation, whose commit changes."""
        if version == "editable":
            return
        root = Path(self.root)
        if self.target_name == "wheel":
            for name in SHARED:
                build_data["force_include"][str(root / name)] = f"credspec/share/{Path(name).name}"
        commit = os.environ.get("CREDSPEC_COMMIT") or (
            "" if (root / FILE).exists() else _commit_of_git(root)
        )
        if not commit:
            return
        written = self._written
        written.parent.mkdir(parents=True, exist_ok=True)
        written.write_text(f"{commit}\n")
        target = FILE if self.target_name == "sdist" else "credspec/_commit.txt"
        build_data["force_include"][str(written)] = target

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Leave nothing but the artifact in the output directory."""
        del version, build_data, artifact_path
        shutil.rmtree(self._written.parent, ignore_errors=True)

    @property
    def _written(self) -> Path:
        return Path(self.directory) / ".commit" / "_commit.txt"


def _commit_of_git(root: Path) -> str:
    if not (root / ".git").exists():
        return ""
    git = ["git", "-c", "safe.directory=*", "-C", str(root)]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
        changes = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit.stdout.strip() + ("+changes" if changes.stdout else "")
