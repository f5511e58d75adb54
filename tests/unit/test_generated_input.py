"""How much input tests generate, tried on a small suite in a folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.suite import generated_input

TESTS = Path(generated_input.__file__).parents[2]
CONFTEST = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
from support.suite import generated_input
def pytest_collection_modifyitems(items):
    generated_input.limit_examples(items)
"""
SUITE = """
from pathlib import Path
from hypothesis import given, settings, strategies as st
from support.suite.generated_input import share_of
def note(name):
    with Path(__file__).with_name("calls").open("a") as file:
        file.write(name + "\\n")
@given(st.integers())
def test_usual(n): note("usual")
@settings(max_examples=400)
@given(st.integers())
def test_many(n): note("many")
@settings(max_examples=5)
@given(st.integers())
def test_few(n): note("few")
def test_own():
    for _ in range(share_of(100)): note("own")
"""


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        (["--hypothesis-profile=all"], {"usual": 100, "many": 400, "few": 5, "own": 100}),
        ([], {"usual": 50, "many": 250, "few": 5, "own": 10}),
        (["--hypothesis-profile=quick"], {"usual": 15, "many": 15, "few": 5, "own": 2}),
    ],
)
def test_every_test_runs_with_all_or_a_part(
    tmp_path: Path, options: list[str], calls: dict[str, int]
) -> None:
    shown = run(tmp_path, *options)
    assert "4 passed" in shown, shown
    lines = (tmp_path / "calls").read_text().splitlines()
    assert {name: lines.count(name) for name in calls} == calls


def test_it_runs_where_failing_examples_cannot_be_kept(tmp_path: Path) -> None:
    """As in a checkout of another user; hypothesis would warn, and a warning is an error."""
    (tmp_path / ".hypothesis").write_text("no directory")
    shown = run(tmp_path, "-Werror", "--hypothesis-profile=quick")
    assert "4 passed" in shown, shown


def run(folder: Path, *options: str) -> str:
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_suite.py").write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-p", "_hypothesis_pytestplugin"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", *options, str(folder)],
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # for a quick start
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    return done.stdout + done.stderr
