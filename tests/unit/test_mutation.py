"""What mutation testing changes, and what it leaves alone; and a run of it on a small tree."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

from mutation.__main__ import SAMPLE, Module, modules_of
from mutation.mutants import mutants, sample

ROOT = Path(__file__).parents[2]


def changes(text: str) -> set[str]:
    source = textwrap.dedent(text).encode()
    return {mutant.apply(source).decode().strip() for mutant in mutants(source)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = a < b", {"x = (a <= b)", "x = (a >= b)"}),
        ("x = a == b", {"x = (a != b)"}),
        ("x = a in b", {"x = (a not in b)"}),
        ("x = a and b", {"x = (a or b)", "x = (b)", "x = (a)"}),
        ("x = not a", {"x = (a)"}),
        ("x = a | b", {"x = (a & b)", "x = (a)"}),
        ("x = a << b", {"x = (a >> b)"}),
        ("x = a - b", {"x = (a + b)"}),
        ("x = True", {"x = (False)"}),
        ("x = 5", {"x = (6)"}),
        ("x = min(a, b)", {"x = (max(a, b))"}),
        ("x = p.fullmatch(a)", {"x = (p.match(a))"}),
        ("x = a.lower()", {"x = (a)"}),
        ("x = await_(shield(a))", {"x = await_((a))"}),
        ("x = {a, b}", {"x = ({b})", "x = ({a})"}),
        ("x = a if b else c", {"x = (a)", "x = (c)"}),
        ("f(a)", {"pass"}),
        ("a.b = c", {"pass"}),
        ("raise E(1 + 1)", {"pass"}),
        ("def f():\n  return a", {"def f():\n  return None"}),
        ("while a:\n  break", {"while a:\n  continue"}),
        ("while a:\n  continue", {"while a:\n  break", "while a:\n  pass"}),
    ],
)
def test_what_is_changed(text: str, expected: set[str]) -> None:
    assert changes(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        '"""A docstring."""',
        "x = 'text'",
        "x = f'{a < b}'",
        "x: list[int]",
        "def f(a: int | None) -> int | None: ...",
        "if TYPE_CHECKING:\n  x = 1",
        "TYPE_CHECKING = False",
        "import a",
        "return_ = None",
    ],
)
def test_what_is_left_alone(text: str) -> None:
    assert changes(text) <= {"pass"} if "..." in text else changes(text) == set()


def test_every_change_compiles_and_is_one() -> None:
    for path in (ROOT / "src/credspec/spec/fixes.py", ROOT / "src/credspec/config/policy.py"):
        source = path.read_bytes()
        found = mutants(source)
        assert len({mutant.apply(source) for mutant in found}) >= len(found) - 2
        for mutant in sample(found, 5, "1"):
            changed = mutant.apply(source)
            assert changed != source
            compile(changed, str(path), "exec", dont_inherit=True)
            # All other lines stay where they are.
            before = source[: mutant.start].count(b"\n")
            assert changed.splitlines()[:before] == source.splitlines()[:before]


def test_the_same_seed_gives_the_same_sample() -> None:
    found = mutants((ROOT / "src/credspec/spec/lint.py").read_bytes())
    assert sample(found, 10, "a") == sample(found, 10, "a")
    assert sample(found, 10, "a") != sample(found, 10, "b")
    assert sample(found, len(found), "a") == found


def test_the_sample_names_modules_that_there_are_and_that_have_tests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A module that was moved or divided would be left out without a word."""
    monkeypatch.chdir(ROOT)
    numbers: dict[str, int] = tomllib.loads(SAMPLE.read_text("utf-8"))["mutants"]
    for name, number in numbers.items():
        module = Module(name, number)
        assert modules_of(name) == [name]
        assert module.path.is_file()
        assert number > 0
        assert module.tests, name


def test_a_module_is_tested_by_those_that_name_it_and_those_of_its_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    of_ending = Module("agent.leases.ending", 1).tests
    assert "tests/unit/agent/leases/test_leases.py" in of_ending
    assert not any(path.startswith("tests/unit/spec/") for path in of_ending)
    named = Module("agent.configuration_reload", 1).tests
    assert "tests/unit/agent/test_configuration_reload.py" in named
    # A module of no package has the tests that name it, and no others of the same folder.
    assert "tests/unit/test_site.py" not in Module("rate_limit", 1).tests


def test_a_package_stands_for_its_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = modules_of("agent")
    assert {"agent.audit", "agent.leases.sweep", "agent.identities.table"} <= {*found}
    assert modules_of("rate_limit") == ["rate_limit"]
    assert not any(name.endswith("__init__") for name in found)
    with pytest.raises(SystemExit, match="no such module"):
        modules_of("agent.policy")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts the changed file")
def test_a_test_that_looks_kills_and_one_that_does_not_lets_survive(tmp_path: Path) -> None:
    """Of a small tree, and with a program that a test starts."""
    package = tmp_path / "src" / "credspec"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "scales.py").write_text(
        "def is_more(a, b):\n    return a > b\n\n\ndef unseen(a):\n    return a + 1\n\n\n"
        "LIMIT = 5\n"
    )
    (tmp_path / "tests" / "unit").mkdir(parents=True)
    (tmp_path / "tests" / "conftest.py").write_text(
        'from hypothesis import settings\nsettings.register_profile("mutation", max_examples=5)\n'
        # As Python 3.11 may.
        "def pytest_runtest_makereport(item, call):\n"
        "    if call.excinfo and item.name == 'test_limit':\n"
        "        raise SystemError\n"
    )
    # This one runs no line of the module.
    (tmp_path / "tests" / "unit" / "test_limits.py").write_text(
        "from credspec.scales import LIMIT\ndef test_limit():\n    assert LIMIT == 5\n"
    )
    (tmp_path / "tests" / "unit" / "test_scales.py").write_text(
        "import subprocess, sys\n"
        "from credspec.scales import is_more, unseen\n"
        "def test_it():\n"
        "    assert is_more(2, 1) is True and is_more(1, 2) is False\n"
        "def test_in_a_program():\n"
        "    code = 'from credspec.scales import is_more; print(is_more(1, 1))'\n"
        "    shown = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)\n"
        "    assert shown.stdout == 'False\\n'\n"
        "def test_nothing():\n"
        "    unseen(1)\n"
    )
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    before = (package / "scales.py").read_bytes()
    shown = subprocess.run(
        [sys.executable, "-m", "mutation", "--root", str(tmp_path), "scales", "--sample", "99"],
        env=os.environ | {"PYTHONPATH": str(ROOT / "scripts")},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert shown.returncode == 1, shown.stdout + shown.stderr
    survivors = [line for line in shown.stdout.splitlines() if line.startswith("survived")]
    assert survivors
    assert all(":6: " in line for line in survivors), shown.stdout
    # `>=` is noticed by the program alone.
    assert f"{len(mutants(before)) - len(survivors)}/" in shown.stdout.replace("  ", "")
    assert (package / "scales.py").read_bytes() == before
