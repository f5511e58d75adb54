"""Builds the OCI images and their bills of materials, into dist/images; `make images` runs it.

As root, with mmdebstrap and buildah. The build stage is a Debian that is bootstrapped for it, so
nothing of this machine gets into an image, and no registry of images is needed. The same sources,
SOURCE_DATE_EPOCH (by default the time of the last commit) and Debian packages give the same bytes.
"""

from __future__ import annotations

import argparse
import configparser
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from support.machine.debian_bootstrap import OWN_MOUNT_NAMESPACE, bootstrap_command

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
RELEASE = "trixie"
# What compiles the binding of Kerberos for Debian's own Python, and looks into libraries.
BUILD_PACKAGES = (
    *("apt", "binutils", "ca-certificates", "gcc", "libc6-dev", "libkrb5-dev"),
    *("python3", "python3-dev", "python3-venv"),
)
IMAGES = ("agent", "gateway", "kubernetes")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# These get the packages of the images from the same mirror, checked by apt as all others.
DOWNLOAD = (
    'mkdir "$1/packages" && cd "$1/packages"'
    ' && APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"'
    " apt-get -qq -o APT::Sandbox::User=root download {names}"
)
MADE_HERE = (".git", ".venv", "build", "dist", "__pycache__", ".*_cache")
PIP_SETTINGS = (
    *("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "default-timeout"),
    "retries",
)
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")


def main() -> None:
    """Build what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "dist/images")
    parser.add_argument("--build-root", type=Path, help="kept here, for the next build")
    options = parser.parse_args()
    os.environ["SOURCE_DATE_EPOCH"] = source_date()
    options.output.mkdir(parents=True, exist_ok=True)
    with scratch_folder() as scratch:
        context = scratch / "context"
        context.mkdir()
        build_root = context / "build-root.tar"
        if options.build_root is not None and options.build_root.exists():
            os.link(options.build_root, build_root)
        else:
            bootstrap(build_root)
            if options.build_root is not None:
                os.link(build_root, options.build_root)
        copy_sources(context / "source")
        build(scratch, context, options.output)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder on disk that is gone in the end, with what buildah stores there."""
    parent = ROOT / "build"
    parent.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="images-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def source_date() -> str:
    """Return the time of the sources, in seconds since 1970."""
    return os.environ.get("SOURCE_DATE_EPOCH") or git("log", "-1", "--format=%ct") or "0"


def git(*arguments: str) -> str:
    """Return what git says of the sources; nothing where they are not a checkout."""
    if not (ROOT / ".git").exists():
        return ""
    command = ["git", "-c", "safe.directory=*", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def bootstrap(target: Path) -> None:
    """Make the root file system of the build stage, as a tar."""
    lines = (line.strip() for line in (HERE / "debian-packages.txt").read_text().splitlines())
    names = " ".join(line for line in lines if line and not line.startswith("#"))
    command = bootstrap_command(
        RELEASE,
        BUILD_PACKAGES,
        target,
        suites=("", "-updates", "-security"),
        more_options=(f"--customize-hook={DOWNLOAD.format(names=names)}",),
    )
    subprocess.run(command, check=True)


def copy_sources(target: Path) -> None:
    """Copy what git has, or would have, of the sources: nothing that was made there."""
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if not listed:
        shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(*MADE_HERE), symlinks=True)
        return
    for name in filter(None, listed.split("\0")):
        source, copy = ROOT / name, target / name
        if source.is_file():  # not one that is deleted, but not yet in git
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
            copy.chmod(0o755 if os.access(source, os.X_OK) else 0o644)


def build(scratch: Path, context: Path, output: Path) -> None:
    """Build all images, and write each with its bill of materials."""
    seconds = os.environ["SOURCE_DATE_EPOCH"]
    commit = git("rev-parse", "HEAD")
    if commit and git("status", "--porcelain", "--untracked-files=no"):
        commit += "+changes"
    arguments = {
        "VERSION": version(),
        "COMMIT": commit,
        "CREATED": datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z"),
        "SOURCE_DATE_EPOCH": seconds,
    }
    pip = scratch / "pip.conf"
    pip.write_text(pip_settings())
    authorities = Path(os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE") or AUTHORITIES)
    # What buildah mounts is gone with it, also if it is killed.
    buildah = [
        *OWN_MOUNT_NAMESPACE,
        "buildah",
        "--root",
        str(scratch / "storage"),
        "--runroot",
        str(scratch / "run"),
    ]
    buildah += ["--storage-driver", storage_driver([*buildah])]
    common = [
        *(*buildah, "build", "--layers", "--format=docker", "--isolation=chroot", "--network=host"),
        *(f"--timestamp={seconds}", f"--secret=id=pip,src={pip}"),
        *(f"--secret=id=authorities,src={authorities}", f"--file={HERE / 'Containerfile'}"),
        *(f"--build-arg={name}={value}" for name, value in arguments.items()),
    ]
    architecture = ARCHITECTURES[platform.machine()]
    for image in IMAGES:
        name = f"credspec-{image}"
        tag = f"{name}:{arguments['VERSION']}"
        archive = output / f"{name}_{arguments['VERSION']}_{architecture}.tar"
        archive.unlink(missing_ok=True)
        number = scratch / f"{image}.id"
        run([*common, f"--target={image}", f"--iidfile={number}", str(context)])
        digest = f"--digestfile={archive}.digest"
        # By its id: by a name, the archive would have that name as well.
        run([*buildah, "push", digest, number.read_text(), f"docker-archive:{archive}:{tag}"])
    materials = scratch / "sbom"
    run([*common, "--target=sbom", f"--output=type=local,dest={materials}", str(context)])
    for image in IMAGES:
        archive = output / f"credspec-{image}_{arguments['VERSION']}_{architecture}.tar"
        shutil.copyfile(materials / f"credspec-{image}.cdx.json", f"{archive}.cdx.json")
    run([*buildah, "rmi", "--all", "--force"])


def run(command: list[str]) -> None:
    """Run a step of the build, which prints what it does."""
    print("$", *command, flush=True)  # noqa: T201 - a program for people
    subprocess.run(command, check=True)


def storage_driver(buildah: list[str]) -> str:
    """Return how buildah is to keep layers: overlay where the file system can, else copies."""
    tried = [*buildah, "--storage-driver", "overlay", "info"]
    can = subprocess.run(tried, check=False, capture_output=True).returncode == 0
    return "overlay" if can else "vfs"


def version() -> str:
    """Return credspec's version."""
    text = (ROOT / "src/credspec/__init__.py").read_text()
    found = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    if found is None:
        sys.exit("src/credspec/__init__.py names no version")
    return found[1].replace("+", "-")  # a tag has no plus


def pip_settings() -> str:
    """Return a pip.conf with what this machine's says about the index."""
    found = configparser.ConfigParser(interpolation=None)
    found.read(["/etc/pip.conf", Path("~/.config/pip/pip.conf").expanduser()], "utf-8")
    given = {name: found.get("global", name, fallback=None) for name in PIP_SETTINGS}
    for name in PIP_SETTINGS:
        given[name] = os.environ.get(f"PIP_{name.upper().replace('-', '_')}") or given[name]
    lines = [f"{name} = {value}" for name, value in given.items() if value is not None]
    return "\n".join(["[global]", *lines, ""])


if __name__ == "__main__":
    main()
