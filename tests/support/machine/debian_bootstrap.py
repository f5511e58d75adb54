"""A Debian root file system in a folder, from the mirror that this machine uses; stdlib only.

Ubuntu's come from Ubuntu's archive, verified by the keys in Debian's package of them.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
UBUNTU = ("noble",)
UBUNTU_MIRROR = "http://archive.ubuntu.com/ubuntu"
# mmdebstrap 1.5 as root sets the propagation of `/` to private in its caller's mount namespace.
OWN_MOUNT_NAMESPACE = ("unshare", "--mount", "--propagation", "slave", "--")


def mmdebstrap(*arguments: str) -> list[str]:
    """Return the command that runs mmdebstrap without any effect on the caller's mounts."""
    return [*OWN_MOUNT_NAMESPACE, "mmdebstrap", *arguments]


def bootstrap_command(
    release: str,
    packages: tuple[str, ...],
    folder: Path,
    *,
    suites: tuple[str, ...] = ("",),
    more_options: tuple[str, ...] = (),
) -> list[str]:
    """Return the command that makes the root file system of a release in a folder.

    `suites` are endings of suites, such as "-updates"; those this machine has no source of are
    left out, except the release itself. `more_options` are of mmdebstrap, such as hooks.
    """
    options = ["--variant=minbase", f"--include={','.join(packages)}", *more_options]
    if release in UBUNTU:
        keys = _ubuntu_keyring(folder.parent / "ubuntu-keyring")
        lines = [f"deb {UBUNTU_MIRROR} {release}{suite} main universe" for suite in suites]
        return mmdebstrap(*options, f"--keyring={keys}", release, str(folder), *lines)
    if KEYRING.exists():
        options.append(f"--keyring={KEYRING}")
    if release == "sid":  # a mirror may be days behind
        options.append('--aptopt=Acquire::Check-Valid-Until "false"')
    lines = [
        f"deb {mirror} {release}{suite} main" for suite in suites if (mirror := _mirror(suite))
    ]
    return mmdebstrap(*options, release, str(folder), *lines)


def extract_command(release: str, packages: tuple[str, ...], tar: Path) -> list[str]:
    """Return the command that packs files of packages of a Debian release into a tar.

    No package is configured, so it is quick and has no accounts, but its programs run.
    """
    options = ["--variant=extract", f"--include={','.join(packages)}"]
    if KEYRING.exists():
        options.append(f"--keyring={KEYRING}")
    return mmdebstrap(*options, release, str(tar), f"deb {_mirror('')} {release} main")


def _ubuntu_keyring(folder: Path) -> Path:
    """Return the keys of Ubuntu's archive, out of Debian's package of them."""
    keyring = folder / "usr/share/keyrings/ubuntu-archive-keyring.gpg"
    if not keyring.exists():
        package = download("ubuntu-keyring", folder)
        subprocess.run(["dpkg-deb", "--extract", package, folder], check=True)
    return keyring


def download(name: str, folder: Path) -> Path:
    """Download a package of this machine's release into a folder; nothing is installed."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{name}_*.deb"):
        old.unlink()
    command = ["apt-get", "-o", "APT::Sandbox::User=root", "download", name]
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    if done.returncode != 0:  # the lists are old, or there are none yet
        subprocess.run(["apt-get", "update"], check=False, capture_output=True)
        done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise OSError(f"apt-get download {name}: {done.stderr[-2000:]}")
    (package,) = folder.glob(f"{name}_*.deb")
    return package


def _mirror(suite: str) -> str | None:
    """Return where this machine has that suite of its own release from; None if nowhere."""
    codename = subprocess.run(
        ["sh", "-c", ". /etc/os-release && echo $VERSION_CODENAME"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    found = subprocess.run(
        [*command, f"Codename: {codename}{suite}"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return found[0] if found else None
