"""The RPMs' metadata; no system to install them on is available here."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from support.machine.package_machine import BUILD, RELEASES, built

if "bookworm" not in RELEASES:
    pytest.skip("RPMs are built with bookworm's packages", allow_module_level=True)


@pytest.fixture(scope="module")
def packages() -> dict[str, Path]:
    directory = built("bookworm").directory
    return {re.sub(r"-\d.*", "", path.name): path for path in directory.glob("*.rpm")}


def query(package: Path, *arguments: str) -> str:
    (root,) = BUILD.glob("roots/bookworm-*")
    (root / "build/queried.rpm").write_bytes(package.read_bytes())
    command = ["chroot", str(root), "rpm", "-qp", *arguments, "/build/queried.rpm"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_all_three_are_there(packages: dict[str, Path]) -> None:
    assert {*packages} == {"credspec", "credspec-lab", "credspec-extras"}


def test_what_it_requires(packages: dict[str, Path]) -> None:
    requires = query(packages["credspec"], "--requires").splitlines()
    for wanted in ("/usr/bin/python3.11", "openldap", "cyrus-sasl-gssapi"):
        assert wanted in requires
    assert any(line.startswith("libkrb5.so.3(") for line in requires)
    versions = [
        tuple(map(int, found[1].split(".")))
        for line in requires
        if (found := re.match(r"libc\.so\.6\(GLIBC_([0-9.]+)\)", line))
    ]
    assert max(versions) <= (2, 34)  # that of Red Hat Enterprise Linux 9
    extras = query(packages["credspec-extras"], "--requires").splitlines()
    assert any(line.startswith("credspec = 0.1") for line in extras)


def test_its_files(packages: dict[str, Path]) -> None:
    listed = query(packages["credspec"], "--list").splitlines()
    for path in ("/usr/bin/credspec", "/usr/lib/systemd/system/credspec-agent.service"):
        assert path in listed
    assert query(packages["credspec"], "--configfiles").split() == ["/etc/credspec/config.toml"]
    owners = query(packages["credspec"], "--queryformat", "[%{FILEUSERNAME}:%{FILEGROUPNAME}\n]")
    assert set(owners.split()) == {"root:root"}
    assert "reproducible" in query(packages["credspec"], "--queryformat", "%{BUILDHOST}")
    assert not any("/credspec/lab/" in path for path in listed)
