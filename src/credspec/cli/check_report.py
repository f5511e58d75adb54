"""What ``credspec check`` prints, for people and for programs."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from credspec.printable import printable

if TYPE_CHECKING:
    from credspec.doctor.step import StepResult

_MARKS: Final = {"ok": "ok", "warning": "warn", "failed": "FAIL", "skipped": "-"}
_COLOURS: Final = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": None}


def show_nothing(result: StepResult) -> None:
    """Print nothing, while it is examined again and again."""
    del result


def report_pause(first: StepResult, left: float) -> None:
    """Say on standard error what is waited for."""
    problem = first.problems[0]
    text = f"waiting, {left:.0f} s left: {first.step.key}: {problem.found} [{problem.code}]"
    click.echo(printable(text), err=True)


def hint_at_directory(spec: str, spec_directory: Path) -> None:
    """Say that a spec is good and yet not where a reference of a container is looked up."""
    path = Path(spec)
    if spec == "-" or "://" in spec or not path.is_file():
        return
    there = spec_directory / path.name
    if os.path.realpath(path) != os.path.realpath(there) and not os.path.exists(there):  # noqa: PTH110
        click.echo(
            f"Note: file://{path.name} is looked up in {spec_directory}, where it is not: "
            f"install -m 0644 {shlex.quote(spec)} {spec_directory}/",
            err=True,
        )


def print_step(result: StepResult) -> None:
    """Print how a step ended."""
    mark = click.style(f"{_MARKS[result.state]:<4}", fg=_COLOURS[result.state])
    subject = f" {result.step.subject}" if result.step.subject else ""
    took = "" if result.state == "skipped" else f"  ({result.seconds * 1000:.0f} ms)"
    text = "" if result.state == "failed" else f": {printable(result.text)}"
    _print_line(f"{result.step.name}{subject}{text}{took}", indent="      ", first=f"{mark}  ")
    for problem in result.problems:
        _print_line(f"{problem.text()} [{problem.code}]", indent="      ")


def _print_line(text: str, *, indent: str, first: str | None = None) -> None:
    """Print a line; a terminal's width is kept without cutting words, a pipe's lines stay whole."""
    start = indent if first is None else first
    if sys.stdout.isatty():
        width = max(40, shutil.get_terminal_size().columns) - len(indent)
        lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
        text = f"\n{indent}".join(lines)
    click.echo(start + text)


def print_all(results: list[StepResult], first: StepResult | None, output: str) -> None:
    """Print the end of an examination, or all of it as JSON."""
    if output == "text":
        _print_end(results, first)
        return
    document = {
        "ok": first is None,
        "first_cause": None if first is None else first.to_json(),
        "steps": [result.to_json() for result in results],
    }
    click.echo(json.dumps(document, indent=2))


def _print_end(results: list[StepResult], first: StepResult | None) -> None:
    warnings = sum(result.state == "warning" for result in results)
    if first is None:
        end = f"All is well, with {warnings} warning(s)." if warnings else "All is well."
        click.echo(f"\n{end}")
        return
    problem = first.problems[0]
    click.echo(f"\nFirst cause: {first.step.key}, of {len(results)} steps")
    lines = {"where": problem.where, "found": problem.found, "expected": problem.expected}
    for name, text in (lines | {"fix": problem.remedy}).items():
        if text:
            _print_line(printable(text), indent=" " * 12, first=f"  {name + ':':<10}")
