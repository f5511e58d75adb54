"""The runtime's launcher, run as an engine runs it, after credspec was removed or moved."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

import credspec
from credspec.setup.launcher import launcher_text

REAL = '#!/bin/sh\necho real "$@"\n'


def launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interpreter: str) -> Path:
    """A launcher for that interpreter, in front of a real runtime that prints its arguments."""
    runtime = tmp_path / "runc"
    runtime.write_text(REAL)
    runtime.chmod(0o755)
    monkeypatch.setattr(sys, "executable", interpreter)
    path = tmp_path / "credspec-runtime"
    path.write_text(launcher_text(tmp_path / "run", (str(runtime),)))
    path.chmod(0o755)
    return path


def lease(tmp_path: Path, container: str) -> Path:
    """Make the directory of a container's lease."""
    state = f"{tmp_path}/state/{container}"
    named = subprocess.run(
        ["b2sum", "--length", "128"], input=state, capture_output=True, text=True, check=True
    )
    made = tmp_path / "run/leases" / named.stdout.split()[0]
    made.mkdir(parents=True)
    return made


@pytest.mark.parametrize("step", ["delete", "kill", "state"])
def test_containers_end_after_credspec_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = launcher(tmp_path, monkeypatch, "/no/such/python3")
    lease(tmp_path, "c1")
    command = [path, "--root", f"{tmp_path}/state", step, "c1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == f"real --root {tmp_path}/state {step} c1\n", done.stderr


@pytest.mark.root  # mounts a tmpfs
@pytest.mark.parametrize("is_busy", [False, True])
def test_the_end_of_a_container_takes_its_tickets_and_needs_no_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_busy: bool
) -> None:
    path = launcher(tmp_path, monkeypatch, "/no/such/python3")
    directory, state = lease(tmp_path, "c1"), tmp_path / "state/c1"
    state.mkdir(parents=True)
    library = ctypes.CDLL(None, use_errno=True)
    assert library.mount(b"t", bytes(directory), b"tmpfs", 0, b"size=1m") == 0
    others = tmp_path / "another's"
    others.write_text("kept")
    seen_elsewhere = os.open(directory, os.O_RDONLY)
    try:
        for name in ("krb5cc", ".hidden", "-rf", "a b"):
            (directory / name).write_text("ticket")
        (directory / "link").symlink_to(others)
        (directory / "rcache").mkdir()
        command = [path, "--root", f"{tmp_path}/state", "delete", "c1"]

        def delete(script: str) -> subprocess.CompletedProcess[str]:
            (tmp_path / "runc").write_text(f"#!/bin/sh\n{script}\n")
            return subprocess.run(command, capture_output=True, text=True, check=False)

        # It still runs, and was not to be killed.
        assert delete("echo refused >&2; exit 1").stderr == "refused\n"
        assert (directory / "krb5cc").exists()
        if not is_busy:
            os.close(seen_elsewhere)
        done = delete(f"rmdir {state}; exit 3")
        assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
        assert not directory.exists()
        assert others.read_text() == "kept"
        if is_busy:
            assert os.listdir(seen_elsewhere) == ["rcache"]  # noqa: PTH208 - by its descriptor
    finally:
        if is_busy:
            os.close(seen_elsewhere)
        library.umount2(bytes(directory), 2)


@pytest.mark.parametrize("step", ["run", "restore", "create"])
def test_no_container_starts_after_credspec_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = launcher(tmp_path, monkeypatch, "/no/such/python3")
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "config.json").write_text('{"annotations": {"credspec.dev/spec": "file://x.json"}}')
    command = [path, "--root", f"{tmp_path}/state", step, "--bundle", bundle, "c1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 127
    assert "real" not in done.stdout


def test_the_package_s_path_without_python_s_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versioned = Path(credspec.__file__).parents[1]
    assert repr(str(versioned)) in launcher_text(tmp_path)
    (tmp_path / "site-packages").symlink_to(versioned)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert repr(f"{tmp_path}/site-packages") in launcher_text(tmp_path)
    (tmp_path / "site-packages").unlink()
    (tmp_path / "site-packages").mkdir()  # of another installation
    assert repr(str(versioned)) in launcher_text(tmp_path)


@pytest.mark.parametrize("status", [0, 3, 255])
def test_the_status_is_the_runtime_s(tmp_path: Path, status: int) -> None:
    bundle, runtime = tmp_path / "bundle", tmp_path / "runc"
    bundle.mkdir()
    # Python cannot tell that there is no spec before it has read this.
    (bundle / "config.json").write_text('{"annotations": {"x": "%63redspec.dev/spec"}}')
    runtime.write_text(f"#!/bin/sh\necho said; exit {status}\n")
    runtime.chmod(0o755)
    path = tmp_path / "credspec-runtime"
    path.write_text(launcher_text(tmp_path / "run", (str(runtime),)))
    path.chmod(0o755)
    done = subprocess.run(
        [path, "run", "--bundle", bundle, "c1"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (status, "said\n", "")


def test_a_refusal_arrives_whole(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "config.json").write_text('{"annotations": {"credspec.dev/spec": "file://a"}, "a"}')
    path = tmp_path / "credspec-runtime"
    path.write_text(launcher_text(tmp_path / "run", ("/bin/true",)))
    path.chmod(0o755)
    done = subprocess.run(
        [path, "run", "--bundle", bundle, "c1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.endswith("[bundle-malformed]\n")
