"""What runs at every container's start imports the standard library and `contract` only."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import credspec

SOURCE = Path(credspec.__file__).parent
PACKAGES = sorted(
    path.parent.relative_to(SOURCE).as_posix()
    for path in SOURCE.rglob("__init__.py")
    if path.parent != SOURCE
)
SHIMS = sorted([*(SOURCE / "shim").rglob("*.py"), *(SOURCE / "contract").rglob("*.py")])


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", SHIMS, ids=lambda path: str(path.relative_to(SOURCE)))
def test_the_shim_imports_the_standard_library_and_the_contract(path: Path) -> None:
    allowed = ("credspec.contract", "credspec.shim")[: 1 + (path.parent.name == "shim")]
    for name in imported(path):
        is_own = name.startswith(allowed)
        assert is_own or name.partition(".")[0] in sys.stdlib_module_names, name


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_says_in_which_process_it_runs(name: str) -> None:
    tree = ast.parse((SOURCE / name / "__init__.py").read_text("utf-8"))
    text = " ".join((ast.get_docstring(tree) or "").split())
    assert re.search(r"process|service|\b[Rr]uns\b", text), text


@pytest.mark.parametrize("name", [name for name in PACKAGES if "/" not in name])
def test_a_package_is_described_in_the_architecture(name: str) -> None:
    text = (SOURCE.parents[1] / "docs/architecture.md").read_text("utf-8")
    described = text.partition("## Packages")[2].partition("## Code map")[0]
    assert f"`{name}/`" in described


@pytest.mark.parametrize("name", ["shim", "gateway", "run"])
def test_what_runs_outside_of_the_agent_does_not_name_its_package(name: str) -> None:
    for path in (SOURCE / name).rglob("*.py"):
        assert "credspec.agent" not in path.read_text("utf-8"), path


@pytest.mark.parametrize("module", ["shim", "podman_hook"])
def test_launchers_of_an_earlier_version_find_what_they_start(module: str) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(SOURCE.parent)!r})\n"
        f"from credspec.runtimes.{module} import main\n"
        "print(main.__module__)"
    )
    shown = subprocess.run(
        [sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=True
    )
    assert shown.stdout.split() in (["credspec.shim.runtime"], ["credspec.shim.podman_hook"])


def test_what_tests_share_is_in_support() -> None:
    tests = Path(__file__).parents[1]
    names = {
        f"{path.relative_to(tests)}: {name}"
        for path in tests.rglob("*.py")
        for name in imported(path)
        if "conftest" in name.split(".")
    }
    assert names == set()
