"""What keeps a tree from being released."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

PROGRAM = Path(__file__).parents[2] / "packaging/release.py"


@pytest.fixture
def release() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A clean tree that may be released."""
    (tmp_path / "src/credspec").mkdir(parents=True)
    (tmp_path / "src/credspec/__init__.py").write_text('__version__ = "0.1.0"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changes\n\n## 0.1.0 (2026-12-01)\n\n- First.\n")
    who = ("-c", "user.name=x", "-c", "user.email=x@localhost")
    for command in (("init", "-q"), ("add", "-A"), (*who, "commit", "-qm", "First")):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    return tmp_path


def test_a_clean_tree_with_its_version_in_the_changelog(release: ModuleType, tree: Path) -> None:
    assert release.problems(tree) == []


def test_a_file_that_is_not_committed(release: ModuleType, tree: Path) -> None:
    (tree / "new").touch()
    (problem,) = release.problems(tree)
    assert "not clean" in problem
    assert "new" in problem


@pytest.mark.parametrize(
    "changelog", ["## Unreleased\n", "## 0.1.0.1\n", "in 0.1.0 this changed\n"]
)
def test_a_changelog_without_the_version(release: ModuleType, tree: Path, changelog: str) -> None:
    (tree / "CHANGELOG.md").write_text(changelog)
    assert any("no section `## 0.1.0`" in problem for problem in release.problems(tree))


def test_a_development_version(release: ModuleType, tree: Path) -> None:
    (tree / "src/credspec/__init__.py").write_text('__version__ = "0.2.0.dev0"\n')
    assert any("development version" in problem for problem in release.problems(tree))
