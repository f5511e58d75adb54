"""The sdist and the wheel, and the wheel in an empty environment."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from support.machine.package_machine import CHECKOUT

SHIPPED = (
    "credspec/_commit.txt",
    "credspec/py.typed",
    "credspec/share/config.toml",
    "credspec/share/grafana/credspec.json",
    "credspec/share/grafana/credspec-kubernetes.json",
    "credspec/share/prometheus/credspec.rules.yml",
    "credspec/spec/schema/credential-spec.schema.json",
    "credspec/setup/units/credspec-agent.service",
    "credspec/setup/units/credspec-agent.socket",
    "credspec/setup/units/credspec-docker-gateway.service",
    "credspec/setup/launcher.py",
    "credspec/status_page/page/script.js",
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


def test_the_bill_of_materials_names_every_locked_dependency(built: Built) -> None:
    document = json.loads((built["wheel"].parents[1] / "credspec-python.cdx.json").read_text())
    named = {(each["name"], each["version"]) for each in document["components"]}
    lock = (CHECKOUT / "requirements/host.lock").read_text()
    locked = re.findall(r"^([A-Za-z0-9_.-]+)==([^ ;\\\n]+)", lock, re.MULTILINE)
    assert named == set(locked)
    assert document["metadata"]["component"]["name"] == "credspec"


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


@pytest.mark.parametrize(
    "extra",
    ["", pytest.param("[host]", marks=pytest.mark.slow)],
    ids=["without extras", "with the host's extra, compiled"],
)
def test_the_wheel_works_in_an_empty_environment(built: Built, tmp_path: Path, extra: str) -> None:
    """With dependencies from the package index, in the versions that are locked."""
    lock = (CHECKOUT / "requirements/host.lock").read_text()
    constraints = tmp_path / "constraints"
    versions = re.findall(r"^[A-Za-z0-9_.-]+==[^ ;\\\n]+", lock, re.MULTILINE)
    constraints.write_text("\n".join(versions))
    venv.create(tmp_path / "venv", with_pip=True)
    python, program = tmp_path / "venv/bin/python", tmp_path / "venv/bin/credspec"
    install = [python, "-m", "pip", "install", "--quiet", f"--constraint={constraints}"]
    flags = {"CFLAGS": "-O0 -g0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    wheel = f"credspec{extra} @ {built['wheel'].as_uri()}"
    subprocess.run([*install, wheel], check=True, env=os.environ | flags)

    def output(*command: str | Path) -> str:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    shown = output(program, "--version")
    assert "(commit " in shown
    assert ("extras: host" in shown) == bool(extra)
    assert '"$schema"' in output(program, "schema")
    assert f"ExecStart={program} agent" in output(program, "setup", "agent", "--dry-run")
    site = next((tmp_path / "venv/lib").iterdir()) / "site-packages"
    for name in ("config.toml", "grafana/credspec.json", "prometheus/credspec.rules.yml"):
        assert (site / "credspec/share" / name).is_file()
    launcher = (
        "from credspec.setup.launcher import launcher_text; from pathlib import Path; "
        "print(launcher_text(Path('/run/credspec')))"
    )
    assert str(site) in output(python, "-I", "-c", launcher)
    for name in ("New-CredentialSpec", "Get-CredentialSpec"):
        assert name in output(program.with_name(name), "-?")
