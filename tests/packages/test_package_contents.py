"""What the Debian packages say of themselves and hold."""

from __future__ import annotations

import re
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from support.machine.package_machine import UNITS, build, built

PYTHON = {"bookworm": 11, "trixie": 13, "noble": 12}
Packages = dict[str, Path]


def field(package: Path, name: str) -> str:
    command = ["dpkg-deb", "--field", str(package), name]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def contents(package: Path) -> dict[str, tarfile.TarInfo]:
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(data)) as archive:
        return {member.name.removeprefix("."): member for member in archive}


def read(package: Path, path: str) -> str:
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(data)) as archive:
        file = archive.extractfile(f".{path}")
        assert file is not None
        return file.read().decode()


def test_it_depends_on_the_release_s_own_libraries_and_python(
    release: str, packages: Packages
) -> None:
    depends = field(packages["credspec"], "Depends")
    minor = PYTHON[release]
    assert f"python3 (>= 3.{minor}~), python3 (<< 3.{minor + 1})" in depends
    for library in (
        r"libkrb5-3 \(>=",
        r"libldap(2|-2\.5-0) \(>=",
        r"libsasl2-2 \(>=",
        r"libc6 \(>=",
    ):
        assert re.search(library, depends), depends
    assert "libsasl2-modules-gssapi-mit" in depends
    assert "samba" not in depends


def test_nothing_but_root_s_files_with_usual_modes(packages: Packages) -> None:
    for package in packages.values():
        for path, member in contents(package).items():
            assert (member.uid, member.gid) == (0, 0), path
            assert member.mode & 0o7022 == 0 or member.issym(), path
            assert member.mode & 0o444 == 0o444, path


def test_what_makes_domain_controllers_is_a_package_of_its_own(
    release: str, packages: Packages
) -> None:
    """Ubuntu 24.04 has Samba 4.19, which cannot do it: no such package there."""
    in_host = [path for path in contents(packages["credspec"]) if "/credspec/lab/" in path]
    assert ("credspec-lab" in packages) == (release != "noble")
    if release == "noble":
        assert in_host == []
        return
    in_lab = [path for path in contents(packages["credspec-lab"]) if "/credspec/lab/" in path]
    assert in_host == []
    assert any(path.endswith("/lab/provisioning.py") for path in in_lab)
    assert "samba-ad-dc" in field(packages["credspec-lab"], "Depends")


def test_no_file_is_in_two_packages(packages: Packages) -> None:
    seen: dict[str, str] = {}
    for name, package in packages.items():
        for path, member in contents(package).items():
            if not member.isdir():
                assert path not in seen, f"{path} is in {seen[path]} and {name}"
                seen[path] = name


def test_commands_units_pages_completions_and_dashboard_come_along(packages: Packages) -> None:
    found = contents(packages["credspec"])
    for command in ("credspec", "New-CredentialSpec", "Get-CredentialSpec", "kubectl-credspec"):
        assert found[f"/usr/bin/{command}"].linkname == f"../lib/credspec/bin/{command}"
        assert f"/usr/share/man/man1/{command}.1.gz" in found
    for path in (
        "/usr/share/bash-completion/completions/credspec",
        "/usr/share/zsh/vendor-completions/_credspec",
        "/usr/share/fish/vendor_completions.d/credspec.fish",
        "/usr/share/credspec/grafana/credspec.json",
        "/usr/share/credspec/grafana/credspec-kubernetes.json",
        "/usr/share/credspec/prometheus/credspec.rules.yml",
        "/usr/share/doc/credspec/copyright",
        "/usr/share/man/man1/credspec-setup-docker.1.gz",
        "/etc/credspec/config.toml",
    ):
        assert path in found
    for unit in UNITS:
        text = read(packages["credspec"], f"/usr/lib/systemd/system/{unit}")
        assert "@PROGRAM@" not in text
        if unit.endswith(".service"):
            assert "ExecStart=/usr/bin/credspec " in text


def test_every_module_is_compiled(packages: Packages) -> None:
    for package in packages.values():
        found = contents(package)
        for path in found:
            if path.endswith(".py") and "/site-packages/" in path:
                directory, _, name = path.rpartition("/")
                stem = name.removesuffix(".py")
                compiled = [
                    p for p in found if p.startswith(f"{directory}/__pycache__/{stem}.cpython")
                ]
                assert compiled, path


def test_nothing_names_the_directories_of_the_build(packages: Packages) -> None:
    for package in packages.values():
        command = ["dpkg-deb", "--fsys-tarfile", str(package)]
        data = subprocess.run(command, check=True, capture_output=True).stdout
        with tarfile.open(fileobj=BytesIO(data)) as archive:
            for member in archive:
                # Descriptions of packages may speak of such paths.
                looked_at = member.isfile() and not member.name.endswith("/METADATA")
                file = archive.extractfile(member) if looked_at else None
                found = file.read() if file is not None else b""
                for word in (b"/build/src", b"/build/stage", b"/opt/credspec-build", b"/tmp/pip-"):
                    assert word not in found, f"{member.name}: {word!r}"


@pytest.mark.slow
def test_two_builds_are_identical_though_all_is_compiled_again(
    release: str, tmp_path: Path
) -> None:
    first, again = built(release), tmp_path / "again"
    same = (f"--commit={first.commit}", f"--epoch={first.epoch}")
    build(release, again, "--fresh-wheels", *same)
    files = [{path.name for path in each.iterdir()} for each in (first.directory, again)]
    assert files[0] == files[1]
    assert {"credspec", "credspec-lab", "credspec-extras"} <= {
        n.partition("_")[0] for n in files[0]
    }
    differ = [n for n in files[0] if (first.directory / n).read_bytes() != (again / n).read_bytes()]
    assert differ == []
