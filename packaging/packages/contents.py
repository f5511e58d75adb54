"""What the packages hold in addition to the Python environment; stdlib only."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
from pathlib import Path

COMMANDS = ("credspec", "New-CredentialSpec", "Get-CredentialSpec", "kubectl-credspec")
UNITS = ("credspec-agent.service", "credspec-agent.socket", "credspec-docker-gateway.service")
PROGRAM = "/usr/bin/credspec"
_SHELLS = {
    "bash": "usr/share/bash-completion/completions/credspec",
    "zsh": "usr/share/zsh/vendor-completions/_credspec",
    "fish": "usr/share/fish/vendor_completions.d/credspec.fish",
}


def version(source: Path) -> str:
    """Return the version, which is written down in one file only."""
    text = (source / "src/credspec/__init__.py").read_text()
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    if found is None:
        raise ValueError("no version in credspec/__init__.py")
    return found[1]


def add(source: Path, stage: Path, prefix: Path) -> None:
    """Add to `stage` what is no Python: commands, units, pages, completions, configuration."""
    (stage / "usr/bin").mkdir(parents=True)
    for name in COMMANDS:
        (stage / "usr/bin" / name).symlink_to(f"../lib/{prefix.name}/bin/{name}")
    for name in UNITS:
        text = (source / "src/credspec/setup/units" / name).read_text()
        _write(stage / "usr/lib/systemd/system" / name, text.replace("@PROGRAM@", PROGRAM))
    _manual_pages(source, stage)
    for shell, path in _SHELLS.items():
        _write(stage / path, _completion(prefix, shell))
    _write(stage / "etc/credspec/config.toml", (source / "packaging/config.toml").read_text())
    (stage / "etc/credspec/specs").mkdir()
    share = stage / "usr/share/credspec"
    share.mkdir(parents=True)
    for name in ("grafana", "prometheus"):
        shutil.copytree(source / "packaging" / name, share / name)


def _manual_pages(source: Path, stage: Path) -> None:
    pages = stage / "usr/share/man/man1"
    pages.mkdir(parents=True)
    for page in sorted((source / "docs/man").glob("*.1")):
        compressed = gzip.compress(page.read_bytes(), 9, mtime=0)
        (pages / f"{page.name}.gz").write_bytes(compressed)
    # The plug-in has the commands of that page.
    (pages / "kubectl-credspec.1.gz").symlink_to("credspec-kubernetes-check.1.gz")


def _completion(prefix: Path, shell: str) -> str:
    return subprocess.run(
        [prefix / "bin/credspec"],
        env={"_CREDSPEC_COMPLETE": f"{shell}_source", "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
