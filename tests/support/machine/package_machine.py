"""A machine of a release with a booted systemd of its own, in which packages are installed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.machine.booted_systemd import BootedSystemd
from support.machine.debian_bootstrap import bootstrap_command

CHECKOUT = Path(__file__).parents[3]
BUILD = CHECKOUT / "build/packages"
RELEASES = tuple(os.environ.get("CREDSPEC_TEST_RELEASES", "bookworm trixie").split())
NEXT_VERSION = "0.1.1.dev0"
LEASES = "/run/credspec/leases"
UNITS = ("credspec-agent.service", "credspec-agent.socket", "credspec-docker-gateway.service")
_SOURCES = (
    *("src", "packaging", "requirements", "docs/man"),
    *("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"),
)
# What the packages depend on is there already, so that nothing is downloaded in a test.
_PACKAGES = (
    *("systemd", "python3", "ca-certificates", "init-system-helpers", "krb5-user"),
    *("libsasl2-modules-gssapi-mit", "libsasl2-2", "libstdc++6", "docker.io", "iptables", "adcli"),
    "procps",  # of the usual installation; docker.service is reloaded by its kill
)
_OF_RELEASE = {
    "bookworm": ("libldap-2.5-0",),
    "trixie": ("libldap2", "docker-cli"),
    "noble": ("libldap2",),
}
# Of the system's units these alone: others would set sysctls and clean /dev of this machine.
_KEPT_UNITS = ("docker.service", "docker.socket", "containerd.service")
ENVIRONMENT = (
    *("HOME=/root", "LANG=C.UTF-8", "TERM=dumb"),
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
)
_NO_NETWORK = "--bridge=none --iptables=false --ip6tables=false --ip-forward=false"
_UNIT_PATH = "/etc/systemd/system:/usr/lib/systemd/system"


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """What was built, and of what: the same again gives the same bytes."""

    directory: Path
    commit: str
    epoch: str

    @property
    def packages(self) -> dict[str, Path]:
        """The .deb files by their packages' names."""
        return {path.name.partition("_")[0]: path for path in self.directory.glob("*.deb")}


def built(release: str, *, version: str | None = None) -> Build:
    """Return the packages of the present files; build them if that was not done yet."""
    directory = BUILD / "tested" / f"{release}-{version or 'own'}"
    stamp = directory.with_name(f"{directory.name}.json")
    state = _state()
    known = json.loads(stamp.read_text()) if stamp.exists() else {}
    if known.get("state") != state:
        known = {
            "state": state,
            "commit": _git("rev-parse", "HEAD"),
            "epoch": _git("log", "-1", "--format=%ct"),
        }
        given = [f"--commit={known['commit']}", f"--epoch={known['epoch']}"]
        given += [f"--version={version}", "--no-extras"] if version else []
        build(release, directory, *given)
        stamp.write_text(json.dumps(known))
    return Build(directory=directory, commit=known["commit"], epoch=known["epoch"])


def build(release: str, output: Path, *options: str) -> None:
    """Build the packages of a release."""
    program = CHECKOUT / "packaging/packages/build.py"
    done = subprocess.run(
        [sys.executable, str(program), release, "--output", str(output), *options],
        env=os.environ | {"PYTHONPATH": f"{CHECKOUT}/tests"},
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]


def _state() -> str:
    """Return a digest of all files that packages are made of."""
    text = _git("ls-files", "--stage", "--", *_SOURCES) + _git("diff", "HEAD", "--", *_SOURCES)
    return hashlib.sha256(text.encode()).hexdigest()


def _git(*arguments: str) -> str:
    command = ["git", "-c", "safe.directory=*", "-C", str(CHECKOUT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def base(release: str, more: tuple[str, ...] = ()) -> Path:
    """Return the root file system that machines of a release are copies of; make it once.

    `more` are Debian packages that it has in addition.
    """
    packages = (*_PACKAGES, *_OF_RELEASE[release], *more)
    key = hashlib.sha256(" ".join(packages).encode()).hexdigest()[:12]
    folder = BUILD / f"roots/run-{release}-{key}"
    if not folder.is_dir():
        new = folder.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        new.parent.mkdir(parents=True, exist_ok=True)
        suites = ("", "-updates", "-security")
        command = bootstrap_command(release, packages, new, suites=suites)
        done = subprocess.run(
            command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
        for unit in (new / "usr/lib/systemd/system").iterdir():
            if unit.name not in _KEPT_UNITS:
                shutil.rmtree(unit) if unit.is_dir() and not unit.is_symlink() else unit.unlink()
        # What is recommended would be downloaded, and some of it changes this machine's kernel.
        (new / "etc/apt/apt.conf.d/90recommends").write_text('APT::Install-Recommends "false";\n')
        docker = new / "usr/lib/systemd/system/docker.service"
        # The machine shares the network with this one.
        text = docker.read_text().replace("/usr/sbin/dockerd ", f"/usr/sbin/dockerd {_NO_NETWORK} ")
        assert _NO_NETWORK in text
        docker.write_text(text)
        new.rename(folder)
    return folder


class PackageMachine:
    """A machine; `root` is its root file system, seen from here."""

    def __init__(self, release: str, root: Path, booted: BootedSystemd) -> None:
        self.release, self.root, self.booted = release, root, booted

    def run(
        self, *command: str, status: int | None = 0, given: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root; its exit status must be `status`, if that is not None."""
        quiet = ("env", "-i", *ENVIRONMENT, "DEBIAN_FRONTEND=noninteractive")
        done = self.booted.run(*quiet, *command, given=given, seconds=900)
        said = f"{command}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        assert status is None or done.returncode == status, said
        return done

    def install(
        self, *packages: Path, status: int = 0, options: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Install package files with apt."""
        names = []
        for path in packages:
            shutil.copy(path, self.root / "srv")
            names.append(f"/srv/{path.name}")
        quiet = ("-y", "-o", "Dpkg::Use-Pty=0")
        return self.run("apt-get", "install", *quiet, *options, *names, status=status)

    def wait_until_active(self, unit: str) -> None:
        """Wait until a unit is active."""
        end = time.monotonic() + 240
        while self.booted.show(unit, "ActiveState") != "active":
            assert time.monotonic() < end, self.run("systemctl", "status", unit, status=None).stdout
            time.sleep(0.2)

    def files(self, *directories: str) -> dict[str, str]:
        """Return what is in directories: kind, mode and content of each by path."""
        script = (
            'find "$@" -printf "%y %m %p %l\\n" -type f -exec sha256sum {} + 2>/dev/null | sort'
        )
        lines = self.run("sh", "-c", script, "find", *directories).stdout.splitlines()
        return dict.fromkeys(lines, "")

    def mounts(self) -> list[str]:
        """Return where something is mounted."""
        lines = self.run("cat", "/proc/self/mounts").stdout.splitlines()
        return sorted(line.split()[1] for line in lines)


@contextmanager
def machine(release: str, directory: Path, more: tuple[str, ...] = ()) -> Iterator[PackageMachine]:
    """Boot a machine whose root file system is a copy of the release's, until the block ends."""
    root = directory / "root"
    copy = ["cp", "--archive", "--reflink=auto", str(base(release, more)), str(root)]
    subprocess.run(copy, check=True)
    booted = BootedSystemd(directory / "log", root, unit_path=_UNIT_PATH)
    try:
        yield PackageMachine(release, root, booted)
    finally:
        booted.close()
        shutil.rmtree(root, ignore_errors=True)
