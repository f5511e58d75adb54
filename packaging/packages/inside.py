#!/usr/bin/env python3
"""Build the packages of this release, as root in a clean root of it; see build.py. Stdlib only.

Everything goes to /build/out: .deb, .rpm, a bill of material for each, and what lintian says.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import contents
import debian
import rpm

SOURCE, OUT, STAGE = Path("/build/src"), Path("/build/out"), Path("/build/stage")
CACHE = Path("/var/cache/credspec")
TOOLS = Path("/opt/credspec-build")
PREFIX = Path("/usr/lib/credspec")
PYTHON = f"python3.{sys.version_info.minor}"
COMPILED = ("krb5",)
"""What is compiled here, against the release's own libraries; all else comes as wheels."""


def run(*command: str | Path, **more: str) -> None:
    """Run a command; it must succeed."""
    subprocess.run([str(part) for part in command], check=True, env=os.environ | more)


def output(*command: str | Path) -> str:
    """Return what a command prints."""
    command = tuple(str(part) for part in command)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def make_tools() -> None:
    """Make the environment of the build tools, by their lock file."""
    lock = SOURCE / "requirements/package.lock"
    done = TOOLS / hashlib.sha256(lock.read_bytes()).hexdigest()
    if done.exists():
        return
    shutil.rmtree(TOOLS, ignore_errors=True)
    run(sys.executable, "-m", "venv", TOOLS)
    pip("install", "--require-hashes", "-r", lock)
    done.touch()


def pip(*arguments: str | Path, **more: str) -> None:
    """Run pip of the build tools."""
    options = {
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_QUIET": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        "PIP_PROGRESS_BAR": "off",
    }
    run(TOOLS / "bin/python", "-m", "pip", *arguments, **options, **more)


def wheels(name: str, *, fresh: bool) -> Path:
    """Return the directory with the wheels of a lock file; compile those that must be."""
    lock = SOURCE / f"requirements/{name}.lock"
    tools = SOURCE / "requirements/package.lock"
    digest = hashlib.sha256(lock.read_bytes() + tools.read_bytes()).hexdigest()[:16]
    needed = Path(f"/build/{name}.lock")
    needed.write_text(_only_extras(lock.read_text()) if name == "extras" else lock.read_text())
    directory = CACHE / f"{name}-{digest}"
    if fresh:
        shutil.rmtree(directory, ignore_errors=True)
    if not directory.exists():
        new = directory.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        flags = {
            kind: output("dpkg-buildflags", "--get", kind).strip()
            for kind in ("CFLAGS", "CPPFLAGS", "LDFLAGS")
        }
        # Without debug information there is no path of this build in what is compiled.
        flags["CFLAGS"] = re.sub(r"(^|\s)-g(?=\s|$)", " ", flags["CFLAGS"]) + " -g0"
        pip(
            *("wheel", "--require-hashes", "--no-deps", "--no-build-isolation"),
            *("--only-binary=:all:", *(f"--no-binary={each}" for each in COMPILED)),
            *("-r", needed, "-w", new),
            DIST_EXTRA_CONFIG=str(SOURCE / "packaging/parallel-build.cfg"),
            **flags,
        )
        new.rename(directory)
    return directory


def install(directory: Path, lock: str) -> None:
    """Install what a lock file names, from its wheels, into the environment that is packaged."""
    lines = [line.rstrip("\\ ") for line in lock.splitlines()]
    needed = [line for line in lines if re.match(r"[A-Za-z0-9_.-]+==", line)]
    target = ("--python", str(PREFIX / "bin/python3"))
    where = ("--no-index", "--find-links", directory)
    pip(*target, "install", *where, "--no-deps", "--no-compile", *needed)


def files_below(directory: Path) -> set[Path]:
    """Return the files and links below a directory."""
    return {path for path in directory.rglob("*") if path.is_symlink() or not path.is_dir()}


def make_environment(
    *, fresh: bool, commit: str, version: str | None, extras: bool
) -> dict[str, set[Path]]:
    """Make the environment at its final path; return the files of each package there."""
    shutil.rmtree(PREFIX, ignore_errors=True)
    (PREFIX / "bin").mkdir(parents=True)
    site = PREFIX / "lib" / PYTHON / "site-packages"
    site.mkdir(parents=True)
    # What `python3 -m venv` makes, without what differs from build to build.
    (PREFIX / "pyvenv.cfg").write_text(
        "home = /usr/bin\ninclude-system-site-packages = false\n"
        f"version = {sys.version_info.major}.{sys.version_info.minor}\n"
    )
    (PREFIX / "bin/python3").symlink_to(f"../../../bin/{PYTHON}")
    # For what outlives an upgrade of the distribution, such as the runtime's launcher.
    (PREFIX / "site-packages").symlink_to(f"lib/{PYTHON}/site-packages")
    if version:
        module = SOURCE / "src/credspec/__init__.py"
        text = re.sub(r'__version__ = ".*"', f'__version__ = "{version}"', module.read_text())
        module.write_text(text)
    own = Path("/build/wheel")
    shutil.rmtree(own, ignore_errors=True)
    pip("wheel", "--no-deps", "--no-build-isolation", "-w", own, SOURCE, CREDSPEC_COMMIT=commit)
    locks = SOURCE / "requirements"
    install(wheels("host", fresh=fresh), (locks / "host.lock").read_text())
    install(own, f"credspec=={contents.version(SOURCE)}\n")
    _remove_what_is_not_shipped(site)
    for name in COMPILED:
        for module in sorted((site / name).rglob("*.so")):
            run("strip", "--strip-unneeded", module)
    host = files_below(PREFIX)
    bill_of_material("credspec")
    lab = {path for path in host if path.is_relative_to(site / "credspec/lab")}
    files = {"credspec": host - lab, "credspec-lab": lab}
    if not extras:
        return files
    install(wheels("extras", fresh=fresh), _only_extras((locks / "extras.lock").read_text()))
    _remove_what_is_not_shipped(site)
    bill_of_material("credspec-extras")
    return files | {"credspec-extras": files_below(PREFIX) - host}


def _only_extras(text: str) -> str:
    """Return a lock file without what the host's has: that is compiled and installed already."""
    lock = (SOURCE / "requirements/host.lock").read_text()
    host = set(re.findall(r"^([A-Za-z0-9_.-]+)==", lock, re.MULTILINE))
    entries = re.split(r"^(?=[A-Za-z0-9_.-]+==)", text, flags=re.MULTILINE)
    return "".join(each for each in entries if each.partition("==")[0] not in host)


def _remove_what_is_not_shipped(site: Path) -> None:
    commands = {*contents.COMMANDS, "python3"}
    for path in (PREFIX / "bin").iterdir():
        if path.name not in commands:
            path.unlink()
    for path in site.glob("*.dist-info/*"):
        # Where it was installed from, and by whose request: of this build, not of the package.
        if path.name in {"direct_url.json", "REQUESTED"}:
            path.unlink()
    for name in ("share", "include"):
        shutil.rmtree(PREFIX / name, ignore_errors=True)


def set_times(directory: Path, epoch: int) -> None:
    """Give everything the time of the commit."""
    for path in [directory, *directory.rglob("*")]:
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def compile_modules(stage: Path) -> None:
    """Compile the Python modules, one after the other so that each build gives the same bytes."""
    run(
        *(sys.executable, "-m", "compileall", "-q", "-j", "1", "-s", stage, "-p", "/"),
        *("--invalidation-mode", "timestamp", stage / PREFIX.relative_to("/")),
        PYTHONHASHSEED="0",
    )


def copy(files: Iterable[Path], stage: Path) -> None:
    """Copy files to the same paths below a directory."""
    for path in sorted(files):
        to = stage / path.relative_to("/")
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, to, follow_symlinks=False)
        if not path.is_symlink():
            to.chmod(0o755 if path.stat().st_mode & 0o100 and _is_program(path) else 0o644)


def _is_program(path: Path) -> bool:
    return path.parent == PREFIX / "bin"


def bill_of_material(package: str) -> None:
    """Write the CycloneDX document of the environment as it is now."""
    run(
        *(TOOLS / "bin/cyclonedx-py", "environment", "--output-reproducible", "--of", "JSON"),
        *("--pyproject", SOURCE / "pyproject.toml", "-o", OUT / f"{package}.cdx.json"),
        PREFIX / "bin/python3",
    )


def main() -> None:
    """Parse, and build everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("release")
    parser.add_argument("--epoch", type=int, required=True)
    parser.add_argument("--commit", required=True)
    parser.add_argument("--version")
    parser.add_argument("--fresh-wheels", action="store_true")
    parser.add_argument("--lint", action="store_true")
    parser.add_argument("--no-extras", action="store_true")
    options = parser.parse_args()
    os.umask(0o022)
    os.environ |= {"SOURCE_DATE_EPOCH": str(options.epoch), "LC_ALL": "C.UTF-8"}
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # nothing but what is compiled below
    shutil.rmtree(OUT, ignore_errors=True)
    shutil.rmtree(STAGE, ignore_errors=True)
    OUT.mkdir(parents=True)
    make_tools()
    files = make_environment(
        fresh=options.fresh_wheels,
        commit=options.commit,
        version=options.version,
        extras=not options.no_extras,
    )
    if options.release in debian.NO_LAB:
        del files["credspec-lab"]
    for package, paths in files.items():
        copy(paths, STAGE / package)
    contents.add(SOURCE, STAGE / "credspec", PREFIX)
    for package in files:
        set_times(STAGE / package, options.epoch)
        compile_modules(STAGE / package)
        set_times(STAGE / package, options.epoch)
    version = contents.version(SOURCE)
    for package in files:
        debian.build(package, SOURCE, STAGE, OUT, version=version, release=options.release)
    if options.release == rpm.BUILT_ON and not options.no_extras:
        for package in files:
            rpm.build(package, SOURCE, STAGE, OUT, version=version)
    if options.lint:
        debian.check(OUT)


if __name__ == "__main__":
    main()
