"""The files that images are built from, and their page, agree; what is built: tests/e2e/images."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import credspec

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/images.md").read_text()
CONTAINERFILE = (ROOT / "packaging/images/Containerfile").read_text()


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build", ROOT / "packaging/images/build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_names_the_version_that_is_built(build: ModuleType) -> None:
    tags = set(re.findall(r"credspec-(?:agent|gateway):(\S+)", PAGE))
    assert tags == {build.version()} == {credspec.__version__}


def test_every_image_is_a_target_on_the_base_and_on_the_page(build: ModuleType) -> None:
    for image in build.IMAGES:
        stage = CONTAINERFILE.split(f"\nFROM base AS {image}\n")[1].split("\nFROM ")[0]
        for word in ("USER ", "HEALTHCHECK ", "CMD ", "org.opencontainers.image.title"):
            assert word in stage, image
        assert f"| `credspec-{image}` |" in PAGE


def test_pip_is_told_where_the_index_is_and_nothing_else(
    build: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example/simple")
    monkeypatch.setenv("PIP_TARGET", "/elsewhere")
    lines = build.pip_settings().splitlines()
    assert lines[0] == "[global]"
    assert "index-url = https://index.example/simple" in lines
    assert {line.partition(" = ")[0] for line in lines[1:]} <= set(build.PIP_SETTINGS)


def test_the_time_of_an_image_is_said_by_the_environment_or_the_commit(
    build: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert build.source_date() == "1700000000"
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert build.source_date().isdigit()
