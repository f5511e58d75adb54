"""Which tests a plain user's pytest leaves out, and what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.suite import requirements

TESTS = Path(requirements.__file__).parents[2]
SUITE = {
    "tests/unit/test_a.py": "def test_plain(): pass\ndef test_domain(lab): pass\n"
    "import pytest\n@pytest.mark.root\ndef test_root(): pass\n",
    "tests/integration/test_b.py": "def test_plain(): pass\ndef test_domain(lab): pass\n",
    "tests/e2e/test_c.py": "def test_engine(host): pass\n",
}
CONFTEST = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
import pytest
from support.suite import requirements
@pytest.fixture
def lab(): pass
@pytest.fixture
def host(lab): pass
def pytest_collection_modifyitems(items):
    requirements.mark(items, is_root={{is_root}})
"""


def run(folder: Path, *options: str, is_root: bool) -> str:
    (folder / "conftest.py").write_text(CONFTEST.format(is_root=is_root))
    markers = "".join(f"  {name}: x\n" for name in requirements.REASONS)
    (folder / "pytest.ini").write_text(f"[pytest]\nmarkers =\n{markers}")
    for name, text in SUITE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", *options]
    return subprocess.run(
        command,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # for a quick start
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    ).stdout


def test_root_runs_everything(tmp_path: Path) -> None:
    assert "6 passed" in run(tmp_path, is_root=True)


def test_a_plain_user_is_told_what_is_left_out_and_why(tmp_path: Path) -> None:
    shown = run(tmp_path, is_root=False)
    assert "1 passed, 5 skipped" in shown
    found = dict(re.findall(r"SKIPPED \[\d+\] \S+: (needs root.*)()", shown))
    assert set(found) == set(requirements.REASONS.values())


@pytest.mark.parametrize(
    ("wanted", "number"), [("engine", 1), ("domain", 3), ("root", 5), ("not root", 1)]
)
def test_they_can_be_chosen(tmp_path: Path, wanted: str, number: int) -> None:
    assert f"{number} passed" in run(tmp_path, "-m", wanted, is_root=True)
