"""What is in the images, what is not, and whether their bills of materials say so."""

from __future__ import annotations

import json
import re
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import credspec
from support.engines.image_contents import ImageContents

ROOT = Path(__file__).parents[3]
PYTHON = {
    "python_version": "3.13",
    "python_full_version": "3.13.5",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "sys_platform": "linux",
    "platform_machine": "x86_64",
    "extra": "",
}
PROGRAMS = {
    "usr/bin/python3.13",
    "usr/lib/credspec/bin/credspec",
    "usr/lib/credspec/bin/credspec-runtime",
    "usr/lib/credspec/bin/Get-CredentialSpec",
    "usr/lib/credspec/bin/New-CredentialSpec",
}
"""All that can be run. Neither a shell nor a compiler, package manager or `pip`."""
LOADER = re.compile(r"usr/lib/x86_64-linux-gnu/ld-linux-x86-64\.so\.2|.*\.so[.0-9]*")
CHECKED_BY_NOBODY = 1  # PEP 552: the flags of a .pyc with a hash that is not compared


@pytest.fixture(scope="module")
def contents(archive: Path) -> ImageContents:
    return ImageContents(archive)


@pytest.fixture(scope="module")
def materials(archive: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(f"{archive}.cdx.json").read_text())
    return found


def test_nothing_but_python_and_credspec_can_be_run(contents: ImageContents) -> None:
    programs = {
        path
        for path, info in contents.files.items()
        if info.isreg()
        and (info.mode & 0o111 or contents.read(path)[:2] == b"#!")
        and not LOADER.fullmatch(path)
        and not path.endswith(".py")
    }
    assert programs == PROGRAMS


def test_no_file_gives_rights_and_all_are_of_root(contents: ImageContents) -> None:
    assert len(contents.files) > 1000
    for path, info in contents.files.items():
        assert not info.mode & (stat.S_ISUID | stat.S_ISGID), path
        assert info.issym() or not info.mode & stat.S_IWOTH or info.mode & stat.S_ISVTX, path
        assert (info.uid, info.gid) == (0, 0), path
        assert info.isreg() or info.isdir() or info.issym() or info.islnk(), path
        assert "SCHILY.xattr.security.capability" not in info.pax_headers, path


def test_all_files_have_the_time_of_the_sources(contents: ImageContents) -> None:
    assert len({info.mtime for info in contents.files.values()}) == 1


def test_python_starts_without_compiling(contents: ImageContents) -> None:
    for folder in ("usr/lib/python3.13", "usr/lib/credspec/lib/python3.13/site-packages"):
        sources = [path for path in contents.files if re.fullmatch(f"{folder}/.*[^/]\\.py", path)]
        assert len(sources) > 100
        for path in sources:
            parent, _, name = path.rpartition("/")
            compiled = f"{parent}/__pycache__/{name[:-3]}.cpython-313.pyc"
            if compiled in contents.files:
                assert contents.read(compiled)[4:8] == bytes([CHECKED_BY_NOBODY, 0, 0, 0]), path
            else:
                assert b"\0" in contents.read(path) or "/lib2to3/" in path, path


def test_what_the_images_say_of_themselves(archive: Path, contents: ImageContents) -> None:
    image = archive.name.removeprefix("credspec-").partition("_")[0]
    config = contents.config
    assert contents.tags == [f"docker.io/library/credspec-{image}:{credspec.__version__}"]
    assert config["User"] == {"gateway": "65532:65532"}.get(image, "0:0")
    assert config["Entrypoint"] == ["/usr/lib/credspec/bin/credspec"]
    assert config["Cmd"][0] == {"gateway": "docker-gateway"}.get(image, "agent")
    assert config["Healthcheck"]["Test"][:2] == ["CMD", "/usr/bin/python3"]
    labels = {
        name.removeprefix("org.opencontainers.image."): value
        for name, value in config["Labels"].items()
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert labels["version"] == credspec.__version__
    assert labels["licenses"] == project["license"]
    assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?", labels["revision"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", labels["created"])
    assert labels["created"] == contents.description["created"]
    assert labels["title"]
    assert labels["description"]


def test_nothing_of_the_building_machine_is_in_an_image(contents: ImageContents) -> None:
    names = {name.partition("=")[0] for name in contents.config["Env"]}
    assert names == {
        *("PATH", "SSL_CERT_FILE", "PYTHONDONTWRITEBYTECODE", "PYTHONMALLOC", "GLIBC_TUNABLES")
    }
    for path in ("etc/pip.conf", "etc/resolv.conf", "etc/hosts", "run/authorities.pem", "tools"):
        assert path not in contents.files or contents.files[path].size == 0


def components(materials: dict[str, Any], kind: str) -> dict[str, str]:
    """Return names and versions of the components whose package URL is of a kind."""
    return {
        each["name"]: each["version"]
        for each in materials["components"]
        if each.get("purl", "").startswith(f"pkg:{kind}/")
    }


def test_the_bill_has_every_locked_dependency_and_no_other(
    archive: Path, materials: dict[str, Any]
) -> None:
    lock = "kubernetes" if "kubernetes" in archive.name else "host"
    text = (ROOT / f"requirements/{lock}.lock").read_text()
    lines = [line.removesuffix("\\") for line in text.splitlines() if re.match(r"[A-Za-z]", line)]
    requirements = map(Requirement, lines)
    locked = {
        each.name: str(each.specifier).removeprefix("==")
        for each in requirements
        if each.marker is None or each.marker.evaluate(PYTHON)
    }
    assert len(locked) > 15
    names = components(materials, "pypi").items()
    found = {re.sub("[-_.]+", "-", name).lower(): version for name, version in names}
    assert found == locked | {"credspec": credspec.__version__}


def test_the_bill_has_every_debian_package_and_no_other(
    materials: dict[str, Any], contents: ImageContents
) -> None:
    folder = "var/lib/dpkg/status.d/"
    installed = {}
    for path in contents.files:
        if path.startswith(folder):
            fields = contents.read(path).decode()
            version = re.search(r"^Version: (\S+)$", fields, re.MULTILINE)
            assert version is not None, path
            installed[path.removeprefix(folder)] = version[1]
    listed = (ROOT / "packaging/images/debian-packages.txt").read_text().splitlines()
    assert set(installed) == {line for line in listed if line and not line.startswith("#")}
    assert components(materials, "deb") == installed
    for name in ("libkrb5-3", "libldap2", "libsasl2-2", "libc6", "libssl3t64"):
        assert name in installed


def test_the_bill_has_what_wheels_bring_along(materials: dict[str, Any]) -> None:
    (cryptography,) = [each for each in materials["components"] if each["name"] == "cryptography"]
    bundled = [each for each in cryptography["components"] if each["name"] == "openssl"]
    assert any(each["purl"].startswith("pkg:generic/openssl@") for each in bundled)


def test_the_bill_says_what_it_is_about(archive: Path, materials: dict[str, Any]) -> None:
    about = materials["metadata"]["component"]
    assert (about["type"], about["version"]) == ("container", credspec.__version__)
    assert archive.name.startswith(f"{about['name']}_")
    (dependencies,) = [
        each["dependsOn"] for each in materials["dependencies"] if each["ref"] == about["bom-ref"]
    ]
    assert set(dependencies) == {each["bom-ref"] for each in materials["components"]}
    assert materials["bomFormat"] == "CycloneDX"
