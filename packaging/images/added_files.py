"""Copies what one root file system has and another has not; runs in the build stage.

Usage: added_files.py BASE LARGER TARGET
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path


def main() -> None:
    """Copy it; a file that is in both must be the same."""
    base, larger, target = map(Path, sys.argv[1:])
    for path in sorted(larger.rglob("*")):
        name = path.relative_to(larger)
        if path.is_dir() and not path.is_symlink():
            continue
        there = base / name
        if not _exists(there):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target / name, follow_symlinks=False)
        elif not path.is_symlink() and path.read_bytes() != there.read_bytes():
            sys.exit(f"{name} differs between the images")


def _exists(path: Path) -> bool:
    return path.is_symlink() or path.exists()


if __name__ == "__main__":
    main()
