"""Change modules by chance and say which changes no unit test notices.

``python -m mutation [--sample N] [--seed SEED] [--tests PATH]... [MODULE]...``

A module is named as ``credspec.spec.lint`` or ``spec.lint``; without any, those of ``sample.toml``
are taken, with its numbers. Needs root, for a mount namespace.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import os
import re
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from mutation.mutants import Mutant, mutants, sample
from mutation.runner import Result, load_libraries, record, try_mutant

SAMPLE = Path(__file__).with_name("sample.toml")
_DEFAULT_NUMBER = 20
_SLOW_SECONDS, _MOST_SECONDS = 10.0, 40.0
"""Tests that take longer are left out, and those beyond so many seconds for one change.

They would take hours of a run, and hardly ever decide. The module's own tests come first.
"""


@dataclass
class Module:
    """A module under test: its dotted name below ``credspec``, its file, how many changes."""

    name: str
    number: int
    results: dict[Result, list[Mutant]] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The source."""
        return (Path.cwd() / "src" / "credspec" / self.name.replace(".", "/")).with_suffix(".py")

    @property
    def own_tests(self) -> str:
        """The file of the module's own tests; there may be none."""
        *parents, name = self.name.split(".")
        return "/".join(["tests/unit", *parents, f"test_{name}.py"])

    @property
    def tests(self) -> list[str]:
        """The files of unit tests that name the module."""
        name = re.compile(rf"credspec\.{re.escape(self.name)}\b")
        files = sorted(str(path) for path in Path("tests/unit").rglob("test_*.py"))
        return [f for f in files if f == self.own_tests or name.search(Path(f).read_text("utf-8"))]


def main() -> int:
    """Run; return 1 if a change was not noticed."""
    parser = argparse.ArgumentParser(prog="mutation", description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE")
    parser.add_argument("--sample", type=int, help="changes of each module")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[2], help="of the tree")
    parser.add_argument("--tests", action="append", help="instead of those that name the module")
    asked = parser.parse_args()
    numbers: dict[str, int] = tomllib.loads(SAMPLE.read_text("utf-8"))["mutants"]
    names = [name.removeprefix("credspec.") for name in asked.modules] or list(numbers)
    modules = [Module(n, asked.sample or numbers.get(n, _DEFAULT_NUMBER)) for n in names]
    os.chdir(asked.root)
    root = Path.cwd()
    # The changed file is that of this tree, wherever the package is installed from.
    sys.path.insert(0, str(root / "src"))
    os.environ["PYTHONPATH"] = os.pathsep.join([f"{root}/src", f"{root}/scripts"])
    load_libraries()
    directory = root / "build" / "mutation"
    directory.mkdir(parents=True, exist_ok=True)
    for module in modules:
        _examine(module, asked.tests, asked.seed, directory)
    return _summary(modules)


def _examine(module: Module, asked: list[str] | None, seed: str, directory: Path) -> None:
    paths = asked or module.tests
    _say(f"{module.name}: {' '.join(paths) or 'no unit tests'}")
    found = record(paths, {str(module.path)}, directory / "log")
    seconds = {test: time for test, time in found["seconds"].items() if time < _SLOW_SECONDS}
    for test in found["failed"]:
        _say(f"  fails as it is, and is left out: {test}")
        seconds.pop(test, None)
    lines = {int(line): tests for line, tests in found["lines"][str(module.path)].items()}
    source = module.path.read_bytes()
    at_import = _lines_at_import(source)
    everything = {test for tests in lines.values() for test in tests}
    named = set(asked or [module.own_tests])
    own = {test for test in seconds if test.partition("::")[0] in named}
    chosen = sample(mutants(source), module.number, f"{seed}:{module.name}")
    for number, mutant in enumerate(chosen):
        span = range(mutant.line, mutant.line + source[mutant.start : mutant.end].count(b"\n") + 1)
        covering = {test for line in span for test in lines.get(line, ())}
        if mutant.line in at_import:
            covering |= everything
        # Tests that start programs run lines that were not seen.
        tests = sorted(
            (test for test in covering | own if test in seconds),
            key=lambda test: (test not in own, seconds[test]),
        )
        spent = list(itertools.accumulate(seconds[test] for test in tests))
        tests = [test for test, so_far in zip(tests, spent, strict=True) if so_far < _MOST_SECONDS]
        result = Result.SURVIVED
        if tests:
            changed = directory / "mutant.py"
            changed.unlink(missing_ok=True)
            changed.write_bytes(mutant.apply(source))
            changed.chmod(0o644)
            # So that compiled code of one is never taken for that of another.
            os.utime(changed, (1_000_000 + number, 1_000_000 + number))
            limit = 30 + 5 * sum(seconds[test] for test in tests)
            result = try_mutant(module.path, changed, tests, limit, directory / "log")
        module.results.setdefault(result, []).append(mutant)
        if result is not Result.KILLED:
            place = f"{module.path.relative_to(Path.cwd())}:{mutant.line}"
            _say(f"{result.value}, {len(tests)} tests: {place}: {mutant.shown(source)}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _lines_at_import(source: bytes) -> set[int]:
    """Return the lines that run when the module is imported: all but the bodies of functions."""
    tree = ast.parse(source)
    lines = set(range(1, source.count(b"\n") + 2))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            lines -= set(range(node.body[0].lineno, node.end_lineno + 1))
    return lines


def _summary(modules: list[Module]) -> int:
    total = noticed = 0
    for module in modules:
        number = sum(map(len, module.results.values()))
        good = number - len(module.results.get(Result.SURVIVED, []))
        total, noticed = total + number, noticed + good
        late = len(module.results.get(Result.TIMED_OUT, []))
        shown = f", {late} of them timed out" if late else ""
        _say(f"{module.name:45} {good:4}/{number:4} {good / max(number, 1):6.0%}{shown}")
    _say(f"{'all':45} {noticed:4}/{total:4} {noticed / max(total, 1):6.0%}")
    return int(noticed < total)


if __name__ == "__main__":
    sys.exit(main())
