"""The runtime's copy on a host without credspec: whole, run by the host's Python, undone."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import credspec
from credspec.errors import UsageError
from credspec.setup.docker import DockerSetup
from credspec.setup.host_copy import MODULES, HostCopy

SOURCE = Path(credspec.__file__).parents[1]


@pytest.fixture
def setup(tmp_path: Path) -> DockerSetup:
    return DockerSetup(
        run_directory=tmp_path / "run",
        gateway_socket=tmp_path / "run/docker.sock",
        daemon_config=tmp_path / "etc/daemon.json",
        launcher_directory=tmp_path / "libexec",
        context=None,
        wait_seconds=0,
        host_python=sys.executable,
    )


def imported(name: str, seen: set[str]) -> set[str]:
    """Return the files of this package that a module imports, in its functions as well."""
    seen.add(name)
    for node in ast.walk(ast.parse((SOURCE / name).read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("credspec"):
            base = (node.module or "").replace(".", "/")
            parts = [base, *(f"{base}/{each.name}" for each in node.names)]
        elif isinstance(node, ast.Import):
            parts = [each.name.replace(".", "/") for each in node.names]
        else:
            continue
        for part in parts:
            path = f"{part}.py"
            if path.startswith("credspec/") and path not in seen and (SOURCE / path).exists():
                imported(path, seen)
    return seen


def test_the_copy_is_all_that_the_shim_imports() -> None:
    packages = {f"credspec/{name}__init__.py" for name in ("", "contract/", "shim/")}
    assert imported("credspec/shim/runtime.py", set()) | packages == set(MODULES)


@pytest.mark.root  # it mounts a tmpfs
def test_a_launcher_runs_from_the_copy_alone(setup: DockerSetup, tmp_path: Path) -> None:
    changes = setup.apply()
    copy = tmp_path / "libexec/python"
    assert changes[0] == f"copied the runtime to {copy}"
    text = setup.launcher.read_text()
    assert str(SOURCE) not in text
    bundle = tmp_path / "bundle"
    (bundle / "rootfs").mkdir(parents=True)
    annotations = {"credspec.dev/spec": "file://www.json"}
    document = {"ociVersion": "1.0.2", "annotations": annotations, "root": {"path": "rootfs"}}
    (bundle / "config.json").write_text(json.dumps(document | {"process": {"env": []}}))
    (tmp_path / "run/leases").mkdir(parents=True)
    log = tmp_path / "log"
    options = ["--root", str(tmp_path / "root"), "--log", str(log), "--log-format", "json"]
    command = [str(setup.launcher), *options, "create", "--bundle", str(bundle), "one"]
    # Another installation that is found first would be the wrong one.
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=SOURCE)
    assert done.returncode != 0
    assert "agent-" in done.stderr + log.read_text()
    assert "Traceback" not in done.stderr
    used = list((copy / "credspec/shim/__pycache__").glob("runtime.*.pyc"))
    assert used or sys.dont_write_bytecode


def test_a_second_set_up_changes_only_what_differs(setup: DockerSetup, tmp_path: Path) -> None:
    setup.apply()
    assert setup.apply() == []
    other = tmp_path / "libexec/python/credspec/shim/runtime.py"
    other.write_text("# of an earlier version\n")
    assert setup.apply(dry_run=True) == [f"copied the runtime to {tmp_path}/libexec/python"]
    assert other.read_text() == "# of an earlier version\n"
    setup.apply()
    assert other.read_bytes() == (SOURCE / "credspec/shim/runtime.py").read_bytes()


def test_undo_leaves_nothing(setup: DockerSetup, tmp_path: Path) -> None:
    setup.apply()
    for name in MODULES[:4]:  # as Python leaves them
        compiled = tmp_path / "libexec/python" / Path(name).parent / "__pycache__"
        compiled.mkdir(exist_ok=True)
        (compiled / f"{Path(name).stem}.cpython-313.pyc").touch()
    undo = replace(setup, host_python=None)  # it need not be named once more
    assert undo.undo(dry_run=True) == undo.undo()
    assert not (tmp_path / "libexec").exists()
    assert undo.undo() == []


def test_files_of_others_stay(setup: DockerSetup, tmp_path: Path) -> None:
    other = tmp_path / "libexec/python/credspec/notes.txt"
    setup.apply()
    other.write_text("mine")
    setup.undo()
    assert other.read_text() == "mine"
    assert [path for path in (tmp_path / "libexec").rglob("*") if path.is_file()] == [other]


@pytest.mark.parametrize("path", ["python3", "/opt/my python/bin/python3", "", "/a\tb"])
def test_an_interpreter_that_a_launcher_cannot_name(tmp_path: Path, path: str) -> None:
    with pytest.raises(UsageError) as raised:
        HostCopy(tmp_path, Path(path)).apply()
    assert raised.value.code == "setup-host-python"
    assert not list(tmp_path.iterdir())
