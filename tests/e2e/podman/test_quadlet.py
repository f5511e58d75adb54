"""The documented unit, as Podman's generator for systemd makes a service of it.

The service's own command is run without systemd, and so without its options about cgroups and
notification. Podman 4.3 has no such generator: part of `make test-runtimes` only.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.engines.folder_engine import FolderPodmanEngine, ReleaseFolder

EXAMPLE = Path(__file__).parents[3] / "docs/runtimes/examples/web.container"
SYSTEMDS = ("--cgroups=", "--sdnotify=", "-d")


@pytest.fixture
def engine(host: Any, newer_release: ReleaseFolder) -> Iterator[FolderPodmanEngine]:
    running = FolderPodmanEngine(host.config.run_directory, newer_release)
    try:
        imported = running.podman("import", "-", "web", data=host.image)
        assert imported.returncode == 0, imported.stderr
        yield running
    finally:
        running.close()


def test_the_documented_unit(host: Any, engine: FolderPodmanEngine) -> None:
    shutil.copyfile(
        host.lab.specs_directory / "WebApp01.json", host.lab.specs_directory / "www.json"
    )
    units = engine.directory / "units"
    units.mkdir()
    shutil.copy(EXAMPLE, units)
    made = subprocess.run(
        engine.folder.command(["/usr/libexec/podman/quadlet", "-dryrun"]),
        env={"QUADLET_UNIT_DIRS": str(units), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    [line] = [line for line in made.stdout.splitlines() if line.startswith("ExecStart=")]
    program, *arguments = shlex.split(line.removeprefix("ExecStart="))
    assert Path(program).name == "podman"
    kept = [
        argument.replace("%N", "web").replace("%t", str(engine.directory))
        for argument in arguments
        if not argument.startswith(SYSTEMDS)
    ]
    shown = engine.podman(*kept, hooks=True)
    assert "Default principal: WebApp01$@EXAMPLE.TEST" in shown.stdout, shown.stderr
    assert host.leases() == []
