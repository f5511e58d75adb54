from pathlib import PureWindowsPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.errors import InvalidSpecError
from credspec.spec.windows_paths import (
    REGISTRY_KEY,
    credential_specs_directory,
    daemon_configuration,
    docker_root,
    file_reference_path,
)

ROOT = PureWindowsPath(r"C:\ProgramData\Docker")


def test_registry_key() -> None:
    assert REGISTRY_KEY.endswith(r"\Virtualization\Containers\CredentialSpecs")


@pytest.mark.parametrize(
    ("environment", "daemon_json", "expected"),
    [
        ({}, None, r"C:\ProgramData\Docker"),
        ({"ProgramData": "D:\\Data"}, None, r"D:\Data\Docker"),
        ({"PROGRAMDATA": "D:\\Data"}, {}, r"D:\Data\Docker"),
        ({"ProgramData": ""}, {"hosts": []}, r"C:\ProgramData\Docker"),
        ({}, {"data-root": "E:\\docker"}, r"E:\docker"),
        ({}, {"graph": "F:\\old"}, r"F:\old"),
        ({}, {"graph": "F:\\old", "data-root": "E:\\docker"}, r"E:\docker"),
        ({}, {"data-root": "", "graph": 5}, r"C:\ProgramData\Docker"),
    ],
)
def test_docker_root(
    environment: dict[str, str], daemon_json: dict[str, Any] | None, expected: str
) -> None:
    assert docker_root(environment, daemon_json) == PureWindowsPath(expected)


def test_configuration_and_directory() -> None:
    assert daemon_configuration({}) == ROOT / "config" / "daemon.json"
    assert credential_specs_directory(ROOT) == ROOT / "CredentialSpecs"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("www.json", "www.json"),
        ("sub\\www.json", "sub\\www.json"),
        ("sub/../www.json", "www.json"),
        ("..\\CredentialSpecs\\www.json", "www.json"),
    ],
)
def test_file_below_the_directory(value: str, expected: str) -> None:
    assert file_reference_path(ROOT, value) == ROOT / "CredentialSpecs" / expected


@pytest.mark.parametrize(
    "value", ["c:\\x.json", "C:/x.json", "c:x.json", "\\x", "/x", "\\\\host\\share\\x"]
)
def test_absolute(value: str) -> None:
    with pytest.raises(InvalidSpecError, match="file:// path cannot be absolute"):
        file_reference_path(ROOT, value)


@pytest.mark.parametrize("value", ["..", "..\\x", "a/../../x", "..\\CredentialSpecsX\\x"])
def test_outside(value: str) -> None:
    with pytest.raises(InvalidSpecError, match="file:// path must be under C:"):
        file_reference_path(ROOT, value)


@given(st.text(alphabet="ab.\\/: "))
def test_every_path_is_below_the_directory_or_refused(value: str) -> None:
    try:
        path = file_reference_path(ROOT, value)
    except InvalidSpecError:
        return
    assert ".." not in path.parts
    assert path.is_relative_to(credential_specs_directory(ROOT))
