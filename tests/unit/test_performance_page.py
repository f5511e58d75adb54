"""docs/performance.md is what the report makes of the results and the text that are kept."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ONE_ROW = """\
{"row": ["/healthz", "0.1 ms", "", "", ""], "met": true}
{"row": ["of a new kind", "7", "", "", "<= 6"], "met": false}
"""


@pytest.fixture
def report(tmp_path: Path) -> dict[str, Any]:
    """Return the report's program, of a copy of the directory."""
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks")
    (tmp_path / "docs").mkdir()
    return runpy.run_path(str(tmp_path / "benchmarks/report.py"))


def test_the_page_and_its_plots_are_made_of_what_is_kept(
    report: dict[str, Any], tmp_path: Path
) -> None:
    report["main"]()
    made = {path.relative_to(tmp_path) for path in (tmp_path / "docs").rglob("*.*")}
    plots = {path.relative_to(ROOT) for path in (ROOT / "docs/plots").iterdir()}
    assert made == {Path("docs/performance.md"), *plots}
    for path in made:
        assert (tmp_path / path).read_text() == (ROOT / path).read_text(), path


@pytest.mark.parametrize("option", ["", "--add"])
def test_what_is_written_by_hand_outlasts_new_results(
    report: dict[str, Any], tmp_path: Path, option: str
) -> None:
    results = tmp_path / "some.jsonl"
    results.write_text(ONE_ROW)
    report["main"](str(results), option)
    page = (tmp_path / "docs/performance.md").read_text()
    assert (ROOT / "benchmarks/bounds.md").read_text() in page
    assert page.count("| /healthz | 0.1 ms |  |  |  |\n") == 1
    assert "| of a new kind | 7 |  |  | <= 6 **falls short** |\n" in page
    assert ("| lease of an identity held |" in page) == (option == "--add")
    assert ("; rows of some " in page) == (option == "--add")
