"""What the Debian package costs, on a booted Debian 13: size, installation, start of its commands.

Part of ``make bench``; as root. The package's command is compared with that of this checkout's
virtual environment, each with its own Python, in turns.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from credspec.lab import provisioning
from measure import Sample, figure, interleaved, row
from support.machine.package_machine import ENVIRONMENT, PackageMachine, built, machine

RELEASE = "trixie"
AGENT = "credspec-agent.service"
RUNS, INSTALLATIONS = 30, 5
MEGABYTE, MEBIBYTE = 1e6, 1024


def main() -> None:
    """Print the table."""
    packages = built(RELEASE).packages
    sizes(packages)
    with ExitStack() as stack:
        lab = provisioning.up("bench")
        stack.callback(lab.down)
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        host = stack.enter_context(machine(RELEASE, directory))
        for name in ("resolv.conf", "hosts"):
            shutil.copy(lab.directory / name, host.root / "etc" / name)
        shutil.copy(lab.host_keytab, host.root / "etc/krb5.keytab")
        shutil.copy(lab.krb5_conf, host.root / "etc/krb5.conf")
        installation(host, packages["credspec"])
        commands(host)
        agent(host)


def sizes(packages: dict[str, Path]) -> None:
    """Tell how large the packages are, packed and installed."""
    for name, path in sorted(packages.items()):
        command = ["dpkg-deb", "--field", str(path), "Installed-Size"]
        kibibytes = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        packed = f"{path.stat().st_size / MEGABYTE:.1f} MB"
        figure(f"{name} .deb", packed, f"{kibibytes / MEBIBYTE:.1f} MiB installed", "", met=True)


def installation(host: PackageMachine, package: Path) -> None:
    """Measure `apt install`, with what the package depends on there already."""
    host.install(package)
    taken = []
    for _ in range(INSTALLATIONS):
        host.run("apt-get", "purge", "-y", "credspec")
        started = time.perf_counter()
        host.install(package)
        taken.append((time.perf_counter() - started) * 1000)
    row("apt install of credspec", Sample("apt", tuple(taken)), None, "", met=True)


def commands(host: PackageMachine) -> None:
    """Measure `credspec --help` of the package and of the virtual environment."""
    inside = host.booted.command("env", "-i", *ENVIRONMENT)
    own = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    bare, packaged, editable = (
        "python3 -c pass in the machine",
        "credspec --help of the package",
        "credspec --help of the virtual environment",
    )
    subjects = {
        bare: [*inside, "python3", "-c", "pass"],
        packaged: [*inside, "credspec", "--help"],
        editable: [str(Path(sys.executable).parent / "credspec"), "--help"],
    }

    def run(command: list[str]) -> None:
        subprocess.run(command, capture_output=True, check=True, env=own)

    found = interleaved(
        {name: lambda command=command: run(command) for name, command in subjects.items()}, RUNS
    )
    row(bare, found[bare], None, "", met=True)
    row(editable, found[editable], None, "", met=True)
    row(packaged, found[packaged], found[editable], "", met=True)


def agent(host: PackageMachine) -> None:
    """Measure how long the agent is away when it is restarted, until systemd has it ready."""
    host.run("credspec", "setup", "agent")
    host.wait_until_active(AGENT)
    restart = {"restart": lambda: host.run("systemctl", "restart", AGENT)}
    found = interleaved(restart, INSTALLATIONS)["restart"]
    met = found.median <= 5000
    row("agent of the package, restarted", found, None, "<= 5000 ms", met=met)


if __name__ == "__main__":
    main()
