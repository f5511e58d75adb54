"""Assembles the root file system of the images out of Debian packages; runs in the build stage.

Usage: image_root.py PACKAGES TARGET

PACKAGES holds the .deb files. No maintainer script runs, since the images have no shell: what those
would do and is needed here is done below.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# Programs come from elsewhere, or are not wanted at all.
PROGRAMS = ("bin/python3", "bin/python3.13")
UNWANTED = (
    "etc/cron.d",
    "etc/default",
    "etc/init.d",
    "etc/profile.d",
    "etc/skel",
    "etc/update-motd.d",
    "usr/games",
    "usr/lib/binfmt.d",
    "usr/share/bash-completion",
    "usr/share/binfmts",
    "usr/share/bug",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/lib/python3.13/config-*",
    "usr/lib/python3.13/LICENSE.txt",
    "usr/lib/python3.13/test",
)
# Extension modules for terminals and databases, whose libraries are left out with them.
MODULES = ("_curses", "_curses_panel", "_dbm", "_gdbm", "_sqlite3", "readline")
FILES = {
    "etc/passwd": "root:x:0:0:root:/:/nonexistent\nnonroot:x:65532:65532:nonroot:/:/nonexistent\n",
    "etc/group": "root:x:0:\nnonroot:x:65532:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
DIRECTORIES = ("etc/credspec", "run/credspec", "run/credspec-gateway", "tmp", "var/log/credspec")
NEEDED = re.compile(r"\(NEEDED\)\s+Shared library: \[(\S+)\]")
ELF = b"\x7fELF"


def main() -> None:
    """Assemble the file system."""
    packages, target = map(Path, sys.argv[1:])
    target.mkdir()
    for package in sorted(packages.glob("*.deb")):
        subprocess.run(["dpkg-deb", "--extract", str(package), str(target)], check=True)
        record(package, target)
    trim(target)
    bundle_authorities(target)
    for name, text in FILES.items():
        (target / name).write_text(text)
    for name in DIRECTORIES:
        (target / name).mkdir(parents=True, exist_ok=True)
    restrict(target)
    if missing := sorted(missing_libraries(target)):
        sys.exit("Not in debian-packages.txt, but needed:\n" + "\n".join(missing))
    compile_library(target)


def record(package: Path, target: Path) -> None:
    """Leave the package's description where scanners of images without dpkg look for it."""
    status = target / "var/lib/dpkg/status.d"
    status.mkdir(parents=True, exist_ok=True)
    fields = subprocess.run(
        ["dpkg-deb", "--field", str(package)], check=True, capture_output=True, text=True
    ).stdout
    name = re.search(r"^Package: (\S+)$", fields, re.MULTILINE)
    if name is None:
        sys.exit(f"{package} has no name")
    (status / name[1]).write_text(fields)


def trim(target: Path) -> None:
    """Remove what nothing here uses; copyright notices stay."""
    for pattern in UNWANTED:
        for path in target.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for folder in ("bin", "sbin"):
        for path in (target / "usr" / folder).glob("*"):
            if f"{folder}/{path.name}" not in PROGRAMS:
                path.unlink()
    for path in (target / "usr/share/doc").rglob("*"):
        if not path.is_dir() and path.name != "copyright":
            path.unlink()
    for path in (target / "usr/lib/python3.13/lib-dynload").iterdir():
        if path.name.partition(".")[0] in MODULES:
            path.unlink()


def restrict(target: Path) -> None:
    """Take setuid and setgid away; modules that are programs as well are run as modules only."""
    for folder, _, names in os.walk(target):
        if Path(folder) != target / "tmp":
            Path(folder).chmod(0o755)
        for path in (Path(folder, name) for name in names):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & (0o644 if path.suffix == ".py" else 0o755))


def bundle_authorities(target: Path) -> None:
    """Make the file with all certificate authorities, as update-ca-certificates does."""
    certificates = sorted((target / "usr/share/ca-certificates").rglob("*.crt"))
    bundle = target / "etc/ssl/certs/ca-certificates.crt"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    bundle.write_text("".join(f"{path.read_text().strip()}\n" for path in certificates))


def missing_libraries(target: Path) -> Iterator[str]:
    """Yield a line for each shared library that a program or library here needs and has not."""
    files = [path for path in target.rglob("*") if path.is_file() and not path.is_symlink()]
    there = {path.name for path in target.rglob("*.so*")}
    for path in files:
        with path.open("rb") as file:
            if file.read(4) != ELF:
                continue
        shown = subprocess.run(
            ["readelf", "--dynamic", str(path)], check=True, capture_output=True, text=True
        ).stdout
        for library in NEEDED.findall(shown):
            if library not in there:
                yield f"{library}, of {path.relative_to(target)}"


def compile_library(target: Path) -> None:
    """Compile the standard library, which Debian's maintainer scripts would do.

    By hash: an image's files all have one time, so their times tell nothing.
    """
    command = ["python3.13", "-IS", "-m", "compileall", "-q"]
    options = ["--invalidation-mode", "unchecked-hash", "-s", str(target), "-p", "/"]
    subprocess.run([*command, *options, str(target / "usr/lib/python3.13")], check=True)


if __name__ == "__main__":
    main()
