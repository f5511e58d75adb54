"""Puts the installed credspec into the images' root file system; runs in the build stage.

Usage: installation.py INSTALLATION TARGET
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

HEALTHCHECK = Path(__file__).with_name("healthcheck.py")
PROGRAMS = (
    *("credspec", "credspec-runtime", "Get-CredentialSpec", "New-CredentialSpec"),
    *("python", "python3", "python3.13"),
)


def main() -> None:
    """Copy what the images run, compiled."""
    installation, target = map(Path, sys.argv[1:])
    copy = target / installation.relative_to("/")
    shutil.copytree(installation, copy, symlinks=True)
    for path in (copy / "bin").iterdir():
        if path.name not in PROGRAMS:
            path.unlink()
    for path in copy.rglob("__pycache__"):
        shutil.rmtree(path)
    # They say that the wheels were local files, which is only how they were installed.
    for path in copy.rglob("direct_url.json"):
        path.unlink()
    shutil.copy(HEALTHCHECK, copy)
    # By hash, since an image's files all have one time.
    command = ["python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    subprocess.run([*command, "-s", str(target), "-p", "/", str(copy)], check=True)


if __name__ == "__main__":
    main()
