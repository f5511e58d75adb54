"""Compose v2, the plug-in of the docker client, from the mirror in use here."""

from __future__ import annotations

import subprocess
from pathlib import Path

INSTALLED = Path("/usr/libexec/docker/cli-plugins/docker-compose")
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def compose_plugin(directory: Path, mounts: int) -> Path:
    """Return the plug-in: Debian 13's, out of its package if this is Debian 12.

    `mounts` is the file descriptor of the mount namespace whose name resolution reaches the mirror.
    """
    if INSTALLED.exists():
        return INSTALLED
    targets = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    mirror = _output([*targets, "Codename: bookworm"], directory).splitlines()[0]
    # apt-get with lists of its own: the system's keep the release that they are of.
    for name in ("lists/partial", "cache/archives/partial"):
        (directory / name).mkdir(parents=True)
    sources = directory / "sources.list"
    sources.write_text(f"deb [signed-by={_KEYRING}] {mirror} trixie main\n")
    settings = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": directory / "lists",
        "Dir::Cache": directory / "cache",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",
    }
    # A namespace is entered at its root.
    enter = ["nsenter", f"--mount=/proc/self/fd/{mounts}", "sh", "-c", 'cd "$0" && exec "$@"']
    apt = [*enter, str(directory), "apt-get", "-qq"]
    apt += [f"--option={name}={value}" for name, value in settings.items()]
    _output([*apt, "update"], directory, mounts)
    _output([*apt, "download", "docker-compose"], directory, mounts)
    (package,) = directory.glob("docker-compose_*.deb")
    _output(["dpkg-deb", "-x", str(package), str(directory)], directory)
    return directory / INSTALLED.relative_to("/")


def _output(command: list[str], directory: Path, *descriptors: int) -> str:
    made = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, check=False, pass_fds=descriptors
    )
    assert made.returncode == 0, made.stderr
    return made.stdout
