"""What the documents point to is there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def headings(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as forges make them."""
    text = re.sub(r"```.*?```", "", document.read_text("utf-8"), flags=re.DOTALL)
    found = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in found)
    return {heading.strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text("utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        other = (document.parent / path).resolve() if path else document
        assert other.exists(), f"{target} does not exist"
        assert other.is_relative_to(ROOT), f"{target} is outside"
        if anchor and other.suffix == ".md":
            assert anchor in headings(other), f"{target}: no such heading"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_lines_are_short_enough_to_read(document: Path) -> None:
    text = re.sub(r"^```.*?^```", "", document.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    # Tables, code and images cannot be broken.
    prose = [line for line in text.splitlines() if not line.startswith(("|", "    ", "!["))]
    assert [line for line in prose if len(line) > 120] == []


def test_classes_of_the_glossary_are_where_it_says() -> None:
    text = (ROOT / "docs/glossary.md").read_text("utf-8").partition("## Classes")[2]
    entries = re.findall(
        r"^- ((?:`\w+`(?:, )?)+) in\s((?:`[\w/.]+`(?:,\s+)?)+):", text, re.MULTILINE
    )
    assert len(entries) == len(re.findall(r"^- ", text, flags=re.MULTILINE))
    for names, modules in entries:
        files = [ROOT / "src/credspec" / module for module in re.findall(r"`(.+?)`", modules)]
        source = "\n".join(file.read_text("utf-8") for file in files)
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"^class {name}\b", source, re.MULTILINE), f"{name} in {modules}"


def test_modules_of_the_architecture_are_there() -> None:
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    named = set(re.findall(r"`((?:[a-z_0-9]+/)+(?:[a-z_0-9]+\.py)?)`", text))
    places = (ROOT / "src/credspec", ROOT)
    assert {name for name in named if not any((at / name).exists() for at in places)} == set()
    assert named


def test_hooks_before_a_commit_run_the_locked_tools() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    for hook in hooks["repos"][0]["hooks"]:
        assert hook["language"] == "system"
        program, *arguments = hook["entry"].split()
        assert program.startswith(".venv/bin/")
        assert (Path(sys.executable).parent / Path(program).name).exists()
        for argument in arguments:
            assert not argument.startswith("tests/") or (ROOT / argument).exists()


def test_the_workflow_calls_what_is_here() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    commands = [step["run"] for step in steps if "run" in step]
    assert ".ci/run" in commands
    assert "make docs" in commands
    made = set(re.findall(r"^make (\S+)", "\n".join(commands), flags=re.MULTILINE))
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert made <= {*targets}
