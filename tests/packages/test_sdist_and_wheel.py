"""The sdist and the wheel, and the wheel in an empty environment."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from package_machine import CHECKOUT

SHIPPED = (
    "credspec/_commit.txt",
    "credspec/py.typed",
    "credspec/share/config.toml",
    "credspec/share/grafana/credspec.json",
    "credspec/share/prometheus/credspec.rules.yml",
    "credspec/spec/schema/credential-spec.schema.json",
    "credspec/agent/units/credspec-agent.service",
    "credspec/agent/units/credspec-agent.socket",
    "credspec/agent/units/credspec-docker-gateway.service",
    "credspec/runtimes/shim_launcher.py",
)
Built = dict[str, Path]


@pytest.fixture(scope="module")
def built() -> Built:
    done = subprocess.run(["make", "sdist"], cwd=CHECKOUT, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    found = list((CHECKOUT / "dist/python").iterdir())
    return {"wheel" if path.suffix == ".whl" else "sdist": path for path in found}


def test_the_wheel_has_all_that_is_read_at_run_time(built: Built) -> None:
    with zipfile.ZipFile(built["wheel"]) as archive:
        assert set(SHIPPED) <= set(archive.namelist())


def test_the_sdist_has_what_builds_the_packages_and_no_tests(built: Built) -> None:
    with tarfile.open(built["sdist"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in (
        "packaging/packages/build.py",
        "requirements/host.lock",
        "LICENSE",
        "CHANGELOG.md",
    ):
        assert name in names
    assert "src/credspec/_commit.txt" in names
    assert not any(name.startswith(("tests/", ".venv/", "build/")) for name in names)


def test_a_wheel_made_of_the_sdist_is_the_wheel(built: Built, tmp_path: Path) -> None:
    python = CHECKOUT / "build/release/bin/python"
    command = [python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    epoch = subprocess.run(
        ["git", "-c", "safe.directory=*", "log", "-1", "--format=%ct"],
        cwd=CHECKOUT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    subprocess.run(
        [*command, "-w", tmp_path, built["sdist"]],
        check=True,
        env=os.environ | {"SOURCE_DATE_EPOCH": epoch},
    )
    (made,) = tmp_path.glob("*.whl")
    assert made.read_bytes() == built["wheel"].read_bytes()


def test_the_wheel_works_in_an_empty_environment(built: Built, tmp_path: Path) -> None:
    """Without the host's extra, so without any compiler; dependencies as they are locked."""
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv/bin/python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    # Those that are installed here; nothing is downloaded.
    site = next((tmp_path / "venv/lib").iterdir()) / "site-packages"
    ours = next((CHECKOUT / ".venv/lib").iterdir()) / "site-packages"
    (site / "locked.pth").write_text(f"{ours}\n")
    subprocess.run([*pip, "--no-deps", str(built["wheel"])], check=True)
    program = tmp_path / "venv/bin/credspec"
    shown = subprocess.run([program, "--version"], check=True, capture_output=True, text=True)
    assert "(commit " in shown.stdout
    schema = subprocess.run([program, "schema"], check=True, capture_output=True, text=True)
    assert '"$schema"' in schema.stdout
    units = subprocess.run(
        [program, "setup", "agent", "--dry-run"], check=True, capture_output=True, text=True
    )
    assert "ExecStart=" in units.stdout
    launcher = (
        "from credspec.runtimes.shim_launcher import launcher_text as t; from pathlib import Path; "
    )
    launcher += "import credspec; print(credspec.__file__); print(t(Path('/run/credspec')))"
    text = subprocess.run([python, "-c", launcher], check=True, capture_output=True, text=True)
    assert str(site) in text.stdout
