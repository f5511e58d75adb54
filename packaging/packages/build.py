#!/usr/bin/env python3
"""Build the distribution packages of one release in a clean root of it: `make packages`.

Usage: build.py RELEASE [--output DIRECTORY] [--fresh-wheels] [--lint] [--version VERSION]

The root is bootstrapped once (below build/packages) and kept; so are the wheels that were compiled
in it. What is built depends on the committed files, their date (SOURCE_DATE_EPOCH) and the release.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from support.machine.fresh_root import FreshRoot

CHECKOUT = Path(__file__).resolve().parents[2]
RELEASES = ("bookworm", "trixie", "noble")
PACKAGES = (
    *("ca-certificates", "dpkg-dev", "file", "lintian", "rpm"),
    *("python3", "python3-dev", "python3-venv"),
    *("gcc", "libc6-dev", "libkrb5-dev", "libldap-dev", "libsasl2-dev"),
)


def git(*arguments: str) -> str:
    """Return what git says of the checkout."""
    command = ["git", "-c", "safe.directory=*", "-C", str(CHECKOUT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def commit() -> str:
    """Return the checkout's commit, with `+changes` if it has other files."""
    changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "HEAD").strip() + ("+changes" if changed else "")


def copy_sources(to: Path) -> None:
    """Copy the files that git tracks."""
    shutil.rmtree(to, ignore_errors=True)
    for name in git("ls-files", "-z").split("\0"):
        source = CHECKOUT / name
        if name and source.is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, to / name)


def clean_root(release: str, show: object) -> FreshRoot:
    """Return the root of a release, bootstrapped if there is none with these packages yet."""
    key = hashlib.sha256(" ".join(PACKAGES).encode()).hexdigest()[:12]
    roots = CHECKOUT / "build/packages/roots"
    folder = roots / f"{release}-{key}"
    if not folder.is_dir():
        new = roots / f"{release}-{key}.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        root = FreshRoot(release, show, new)
        if root.bootstrap(PACKAGES) != 0:
            raise SystemExit(f"the root of {release} could not be bootstrapped")
        root.take_over()
        new.rename(folder)
    return FreshRoot(release, show, folder)


def build(options: argparse.Namespace) -> None:
    """Build, and copy the results out of the root."""
    lock = CHECKOUT / f"build/packages/{options.release}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # two builds at once need the same paths
        root = clean_root(options.release, lambda piece: os.write(1, piece))
        copy_sources(root.folder / "build/src")
        epoch = options.epoch or git("log", "-1", "--format=%ct").strip()
        given = [f"--epoch={epoch}", f"--commit={options.commit or commit()}"]
        given += ["--fresh-wheels"] if options.fresh_wheels else []
        given += ["--lint"] if options.lint else []
        given += ["--no-extras"] if options.no_extras else []
        given += [f"--version={options.version}"] if options.version else []
        try:
            root.start()
            program = "/build/src/packaging/packages/inside.py"
            status = root.run("python3", program, options.release, *given)
        finally:
            root.close(keep=True)
        if status != 0:
            raise SystemExit(f"building for {options.release} failed with status {status}")
        shutil.rmtree(options.output, ignore_errors=True)
        shutil.copytree(root.folder / "build/out", options.output)
    for path in sorted(options.output.iterdir()):
        sys.stdout.write(f"{path.stat().st_size:>12} {path}\n")


def main() -> None:
    """Parse and build."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("release", choices=RELEASES)
    parser.add_argument("--output", type=Path, help="default: dist/RELEASE")
    parser.add_argument("--fresh-wheels", action="store_true", help="compile again")
    parser.add_argument("--lint", action="store_true", help="let lintian check; minutes")
    parser.add_argument("--no-extras", action="store_true", help="no credspec-extras and no .rpm")
    parser.add_argument("--version", help="call it another version, for tests of upgrades")
    parser.add_argument("--epoch", help="seconds since 1970; default: the commit's time")
    parser.add_argument("--commit", help="what --version says; default: the checkout's")
    options = parser.parse_args()
    options.output = options.output or CHECKOUT / "dist" / options.release
    build(options)


if __name__ == "__main__":
    main()
