#!/usr/bin/env python3
"""Check whether this tree can be released, and say what to publish: `make release`.

Usage: release.py check | publish
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
DIST = CHECKOUT / "dist"
SUMS = "SHA256SUMS"


def version(checkout: Path) -> str:
    """Return the version, which is written down in one file only."""
    text = (checkout / "src/credspec/__init__.py").read_text()
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    if found is None:
        raise SystemExit("src/credspec/__init__.py has no __version__")
    return found[1]


def problems(checkout: Path) -> list[str]:
    """Return what keeps the tree from being released."""
    number = version(checkout)
    found = []
    if re.search(r"dev|\+", number):
        found.append(f"{number} is a development version: set __version__ to the release's")
    changelog = (checkout / "CHANGELOG.md").read_text()
    heading = rf"^## \[?{re.escape(number)}\]?(?:\s|$)"
    if not re.search(heading, changelog, re.MULTILINE):
        found.append(f"CHANGELOG.md has no section `## {number}`")
    git = ["git", "-c", "safe.directory=*", "-C", str(checkout), "status", "--porcelain"]
    changed = subprocess.run(git, check=True, capture_output=True, text=True).stdout
    if changed:
        found.append(f"the tree is not clean:\n{changed.rstrip()}")
    return found


def check() -> int:
    """Print what is in the way of a release; return the exit status."""
    found = problems(CHECKOUT)
    for line in found:
        sys.stderr.write(f"release: {line}\n")
    return 1 if found else 0


def publish() -> int:
    """Write the sums of all that was built and print what to do with it."""
    files = sorted(p for p in DIST.rglob("*") if p.is_file() and p.name != SUMS)
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(DIST)}" for p in files]
    (DIST / SUMS).write_text("\n".join(lines) + "\n")
    number = version(CHECKOUT)
    sys.stdout.write(
        "".join(f"{path.stat().st_size:>12} {path.relative_to(CHECKOUT)}\n" for path in files)
        + f"\nTo publish credspec {number}, with the releaser's own key:\n"
        f"  git tag --sign v{number} && git push origin v{number}\n"
        f"  gpg --armor --detach-sign dist/{SUMS}\n"
        "  twine upload dist/python/*\n"
        "  put dist/*/*.deb into the apt repository, dist/*/*.rpm into the dnf repository,\n"
        "  push the images in dist/images to the registry (docs/images.md),\n"
        f"  and put all of it with {SUMS} and {SUMS}.asc to the release page\n"
    )
    return 0


if __name__ == "__main__":
    if sys.argv[1:] not in (["check"], ["publish"]):
        raise SystemExit(__doc__)
    sys.exit(check() if sys.argv[1] == "check" else publish())
