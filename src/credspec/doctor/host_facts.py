"""What is so on this host: versions, services, engines, mounts and the ends of logs."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from credspec import __version__
from credspec.agent.config import Config
from credspec.agent.systemd_setup import AGENT_SOCKET, AGENT_UNIT, GATEWAY_UNIT

_SECONDS: Final = 15
_LINES: Final = 300
_TAIL_BYTES: Final = 1 << 20
_UNITS: Final = (AGENT_UNIT, AGENT_SOCKET, GATEWAY_UNIT, "docker.service", "containerd.service")
_PROPERTIES: Final = (
    *("LoadState", "ActiveState", "SubState", "Result", "UnitFileState", "NRestarts", "MainPID"),
    *("ExecMainStatus", "ActiveEnterTimestamp", "FragmentPath", "DropInPaths", "StatusText"),
)
_PROGRAMS: Final = (
    *(("docker", "--version"), ("dockerd", "--version"), ("podman", "--version")),
    *(("containerd", "--version"), ("runc", "--version"), ("crun", "--version")),
    *(("adcli", "--version"), ("sssd", "--version"), ("smbd", "--version")),
)


def versions() -> Any:
    """Return the versions of credspec, its packages and the system."""
    packages = {}
    for requirement in importlib.metadata.requires("credspec") or []:
        name = re.split(r"[\s<>=!~;\[(]", requirement, maxsplit=1)[0]
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            packages[name] = "not installed"
    return {
        "credspec": __version__,
        "program": sys.executable,
        "python": platform.python_version(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "packages": packages,
        "user": os.geteuid(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def units() -> Any:
    """Return the state of the services that count, without their environment."""
    option = f"--property={','.join(_PROPERTIES)}"
    shown = {}
    for unit in _UNITS:
        lines = _run("systemctl", "show", "--no-pager", option, unit).splitlines()
        shown[unit] = dict(line.split("=", 1) for line in lines if "=" in line)
    return shown


def engines() -> Any:
    """Return the first lines of what container engines and join tools say of their versions."""
    return {command[0]: _first_lines(*command) for command in _PROGRAMS}


def _first_lines(*command: str) -> list[str]:
    try:
        return _run(*command).splitlines()[:3]
    except (OSError, subprocess.TimeoutExpired):
        return ["cannot be run"]


def mounts(config: Config) -> str:
    """Return the mounts that leases depend on: of the root, of /run and of the run directory."""
    lines = Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines(keepends=True)
    run = str(config.run_directory)
    wanted = [
        line for line in lines if (at := line.split(" ")[4]) in {"/", "/run"} or at.startswith(run)
    ]
    return "".join(wanted[:_LINES])


def tail(path: Path) -> str:
    """Return the last lines of a file."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        lines = file.read(_TAIL_BYTES).decode("utf-8", "replace").splitlines(keepends=True)
    return "".join(lines[-_LINES:])


def journal() -> str:
    """Return the services' last lines in the journal."""
    units = [f"--unit={unit}" for unit in (AGENT_UNIT, GATEWAY_UNIT)]
    options = ["--no-pager", "--output=short-iso", f"--lines={_LINES}"]
    return _run("journalctl", *units, *options)[-_TAIL_BYTES:]


def _run(*command: str) -> str:
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        errors="replace",
        check=False,
        timeout=_SECONDS,
    ).stdout
