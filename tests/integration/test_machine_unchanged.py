"""What the tests' own tools do to the machine: nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.machine.debian_bootstrap import mmdebstrap
from support.machine.machine_state import changed, differences, propagation, state

ROOT = Path(__file__).parents[2]
# As mmdebstrap 1.5 does as root.
MAKES_MOUNTS_PRIVATE = "#!/bin/sh\nmount --make-rprivate / && echo made\n"


def on_a_booted_machine(program: str, *arguments: str, path: str) -> str:
    """Run a Python program in a mount namespace in which all is shared, as systemd makes it."""
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
    script = 'mount --make-rshared / && exec "$@"'
    return subprocess.run(
        [*command, script, "sh", sys.executable, "-c", program, *arguments],
        env=os.environ
        | {"PATH": f"{path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


COMPARES = """
import json, subprocess, sys
from support.machine.debian_bootstrap import mmdebstrap
from support.machine.machine_state import propagation
before = propagation()
command = json.loads(sys.argv[1]) if sys.argv[1:] else mmdebstrap("trixie", "/nowhere")
print(subprocess.run(command, capture_output=True, text=True, check=True).stdout, end="")
after = propagation()
print("shared" in before["/"], after == before)
"""


@pytest.fixture
def simulated(tmp_path: Path) -> Path:
    program = tmp_path / "mmdebstrap"
    program.write_text(MAKES_MOUNTS_PRIVATE)
    program.chmod(0o755)
    return tmp_path


def test_a_simulated_mmdebstrap_that_makes_mounts_private(simulated: Path) -> None:
    assert on_a_booted_machine(COMPARES, path=str(simulated)) == "made\nTrue True\n"


def test_that_comparison_sees_what_it_would_do_otherwise(simulated: Path) -> None:
    shown = on_a_booted_machine(COMPARES, '["mmdebstrap"]', path=str(simulated))
    assert shown == "made\nTrue False\n"


def test_nothing_else_runs_mmdebstrap() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    programs = [ROOT / name for name in listed if name.endswith(".py") or "." not in name]
    callers = [
        path.name
        for path in programs
        if path.is_file() and '"mmdebstrap"' in path.read_text("utf-8", "replace")
    ]
    # Two of them only look for it.
    looking = ["test_machine_unchanged.py", "test_packaging.py"]
    assert sorted(callers) == ["__main__.py", "debian_bootstrap.py", *looking]
    assert mmdebstrap("x")[:2] == ["unshare", "--mount"]


def test_changes_of_propagation_are_found() -> None:
    line = "27 1 254:0 / {} rw,relatime{} - ext4 /dev/vda rw"
    before = propagation("\n".join([line.format("/", " shared:1"), line.format("/a", "")]))
    after = propagation("\n".join([line.format("/", " shared:9"), line.format("/a", " master:2")]))
    assert before == {"/": ["shared"], "/a": ["private"]}
    assert changed("mounts", before, after) == ["mounts /a: ['private'] before, ['master'] now"]


def test_differences_of_a_machine() -> None:
    before = state()
    assert differences(before, before, shared=False) == []
    after = before | {
        "clock": before["clock"] + 3600,
        "links": [*before["links"], "docker0"],
        "sysctls": before["sysctls"] | {"net/ipv4/ip_forward": "7"},
        "processes": ["dockerd"],
        "propagation": before["propagation"] | {"/new": ["private"]},
    }
    found = "\n".join(differences(before, after, shared=False))
    for expected in (
        "link docker0",
        "sysctl net/ipv4/ip_forward: ",
        "process dockerd",
        "point /new",
    ):
        assert expected in found
    elsewhere = "\n".join(differences(before, after, shared=True))
    assert "link docker0" in elsewhere
    assert "clock: set by 3600 s" in elsewhere
    assert "sysctl net/ipv4/ip_forward: " in elsewhere
    assert "dockerd" not in elsewhere
