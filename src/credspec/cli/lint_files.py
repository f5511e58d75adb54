"""The work of ``credspec lint`` without click, whose import costs more than the work."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from credspec.errors import ExitStatus, InvalidSpecError, Problem, UsageError
from credspec.printable import printable
from credspec.spec.encoding import MAX_SPEC_BYTES, check_text, decode_spec
from credspec.spec.file_kind import FileKind, kind_of, parse_text
from credspec.spec.lint import Finding, Severity, lint_document
from credspec.spec.strict_json import parse_json

_YAML: Final = (".yaml", ".yml")


class Linted(NamedTuple):
    """A file: how it is called in the output, its contents, and the findings about it."""

    path: str
    data: bytes
    findings: tuple[Finding, ...]


def run_plain(paths: Sequence[str]) -> int:
    """Lint files as ``credspec lint`` does without options; return the exit status."""
    linted = [lint_file(path) for path in files_of(paths)]
    print_text(linted)
    return status_of(linted, strict=False)


def files_of(paths: Iterable[str]) -> list[str]:
    """Return the files that the paths mean: a directory means its ``*.json``, sorted.

    Raises:
        UsageError: `lint-no-file` if a path does not exist, or a directory has none.
    """
    found: list[str] = []
    for path in paths:
        if path != "-" and os.path.isdir(path):  # noqa: PTH112 - a path may hold a NUL
            inside = sorted(str(file) for file in Path(path).glob("*.json") if file.is_file())
            if not inside:
                raise _no_file(path, "no *.json in this directory")
            found += inside
        elif path == "-" or os.path.exists(path):  # noqa: PTH110
            found.append(path)
        else:
            raise _no_file(path, "no such file")
    return found


def _no_file(path: str, found: str) -> UsageError:
    return UsageError.of(
        "lint-no-file",
        found,
        where=path[:200],
        expected="the path of a credential spec, of a directory of them, or - for input",
    )


def lint_file(path: str) -> Linted:
    """Lint one file: a spec, or a file of another tool that holds one; ``-`` is standard input.

    Raises:
        UsageError: `lint-unreadable`.
    """
    data = read(path)
    try:
        document = parse(path, data)
    except InvalidSpecError as error:
        findings = tuple(Finding(Severity.ERROR, problem) for problem in error.problems)
        return Linted(path, data, findings)
    kind = kind_of(document)
    if kind in {FileKind.CREDENTIAL_SPEC, FileKind.KUBERNETES}:
        return Linted(path, data, lint_document(document))
    from credspec.spec.carrier_lint import lint_carrier

    return Linted(path, data, lint_carrier(document, kind))


def read(path: str) -> bytes:
    """Return at most one byte more than a spec may have.

    Raises:
        UsageError: `lint-unreadable`.
    """
    if path == "-":
        return sys.stdin.buffer.read(MAX_SPEC_BYTES + 1)
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - shown as it was given
            return file.read(MAX_SPEC_BYTES + 1)
    except (OSError, ValueError) as error:
        text = getattr(error, "strerror", None) or str(error)
        raise UsageError.of("lint-unreadable", text, where=path[:200]) from None


def parse(path: str, data: bytes) -> Any:
    """Return the parsed document of a file; the ending of its name tells JSON from YAML, if it can.

    Raises:
        InvalidSpecError: it is neither.
    """
    text = decode_spec(data)
    check_text(text)
    name = path.lower()
    if name.endswith(".json"):
        return parse_json(text)
    return parse_text(text, is_yaml=name.endswith(_YAML))


def print_text(linted: Iterable[Linted]) -> None:
    """Print a line for each finding, and on standard error how many there were of each kind."""
    errors = warnings = 0
    for file in linted:
        if not file.findings:
            continue
        places = _places(file)
        for severity, problem, _ in file.findings:
            errors += severity is Severity.ERROR
            warnings += severity is Severity.WARNING
            place = _place(problem, places)
            sys.stdout.write(f"{printable(file.path)}:{place} {severity}: {problem.text()}")
            sys.stdout.write(f" [{problem.code}]\n")
    if errors or warnings:
        sys.stdout.flush()
        sys.stderr.write(f"{errors} error(s), {warnings} warning(s)\n")


def status_of(linted: Iterable[Linted], *, strict: bool) -> int:
    """Return 3 if there is an error, or with `strict` a warning; else 0."""
    for file in linted:
        for finding in file.findings:
            if strict or finding.severity is Severity.ERROR:
                return ExitStatus.INVALID_SPEC
    return ExitStatus.OK


def _places(file: Linted) -> dict[str, tuple[int, int]]:
    if file.path.lower().endswith(_YAML):
        return {}
    from credspec.spec.json_positions import positions

    try:
        text = decode_spec(file.data)
        return positions(text) if text.lstrip().startswith(("{", "[")) else {}
    except InvalidSpecError:
        return {}


def _place(problem: Problem, places: dict[str, tuple[int, int]]) -> str:
    where = problem.where
    while where and where not in places:
        where = where.rpartition("/")[0]
    line, column = places.get(where, (0, 0)) if problem.where.startswith("/") else (0, 0)
    return f"{line}:{column}:" if line else ""
