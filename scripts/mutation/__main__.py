"""Change modules by chance and say which changes no unit test notices.

``python -m mutation [--sample N] [--seed SEED] [--tests PATH]... [MODULE]...``

A module is named as ``credspec.spec.lint`` or ``spec.lint``, all modules of a package by the
package; without any, those of ``sample.toml`` are taken, with its numbers. Needs root, for a mount
namespace.
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
from typing import Any

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
        """The files of unit tests that name the module or its package, and those of its package.

        Not all modules are tested by their names: parts of a package are through its other modules.
        """
        package, _, name = self.name.rpartition(".")
        named = re.compile(rf"credspec\.{re.escape(self.name)}\b")
        if package:
            imported = rf"from credspec\.{re.escape(package)} import [^\n]*\b{re.escape(name)}\b"
            named = re.compile(f"{named.pattern}|{imported}")
        folder = Path(self.own_tests).parent
        while not folder.is_dir():
            folder = folder.parent  # a package without a folder of tests has those of the one above
        files = sorted(Path("tests/unit").rglob("test_*.py"))
        return [
            str(f)
            for f in files
            if (package and f.parent == folder)
            or str(f) == self.own_tests
            or named.search(f.read_text("utf-8"))
        ]


def modules_of(name: str) -> list[str]:
    """Return the names of a package's modules, of its packages' too; of a module, its own."""
    root = Path("src/credspec")
    path = root / name.replace(".", "/")
    if path.with_suffix(".py").is_file():
        return [name]
    files = sorted(f for f in path.rglob("*.py") if f.name != "__init__.py")
    if not files:
        raise SystemExit(f"no such module: credspec.{name}")
    return [".".join(f.relative_to(root).with_suffix("").parts) for f in files]


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
    os.chdir(asked.root)
    root = Path.cwd()
    wanted = [name.removeprefix("credspec.") for name in asked.modules] or list(numbers)
    names = dict.fromkeys(module for name in wanted for module in modules_of(name))
    modules = [Module(n, asked.sample or numbers.get(n, _DEFAULT_NUMBER)) for n in names]
    # The changed file is that of this tree, wherever the package is installed from.
    sys.path.insert(0, str(root / "src"))
    os.environ["PYTHONPATH"] = os.pathsep.join([f"{root}/src", f"{root}/scripts"])
    load_libraries()
    # Each run has its own, so that several can go on at a time.
    directory = root / "build" / "mutation" / str(os.getpid())
    directory.mkdir(parents=True, exist_ok=True)
    # Tests of one package run once, whatever number of its modules is examined.
    paths = asked.tests or sorted({path for module in modules for path in module.tests})
    found = record(paths, {str(module.path) for module in modules}, directory / "log")
    for test in found["failed"]:
        _say(f"fails as it is, and is left out: {test}")
    for module in modules:
        _examine(module, found, asked.tests, asked.seed, directory)
    return _summary(modules)


def _examine(
    module: Module, found: dict[str, Any], asked: list[str] | None, seed: str, directory: Path
) -> None:
    seconds = {
        test: time
        for test, time in found["seconds"].items()
        if time < _SLOW_SECONDS and test not in found["failed"]
    }
    lines = {int(line): tests for line, tests in found["lines"][str(module.path)].items()}
    source = module.path.read_bytes()
    at_import = _lines_at_import(source)
    everything = {test for tests in lines.values() for test in tests}
    _say(f"{module.name}: {len(everything)} tests")
    named = set(asked or [module.own_tests])
    own = {test for test in seconds if test.partition("::")[0] in named}
    naming = {test for test in seconds if test.partition("::")[0] in (asked or module.tests)}
    chosen = sample(mutants(source), module.number, f"{seed}:{module.name}")
    for number, mutant in enumerate(chosen):
        span = range(mutant.line, mutant.line + source[mutant.start : mutant.end].count(b"\n") + 1)
        covering = {test for line in span for test in lines.get(line, ())}
        if mutant.line in at_import:
            # A test may use a constant, and run no line.
            covering |= everything | naming
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
